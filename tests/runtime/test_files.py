import errno
import os

import pytest

from mmdet_hadaptive.hooks import AtomicLocalBackend
from mmdet_hadaptive.runtime.files import write_whole


def test_a_failed_write_keeps_the_file(tmp_path, monkeypatch):
    file = tmp_path / 'epoch_1.pth'
    write_whole(b'old', file)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match=r'No space left on device: .*epoch_1\.pth .*make room') as e:
        write_whole(b'new', file)
    assert e.value.errno == errno.ENOSPC
    assert file.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(OSError, match=r'make room') as e:
        AtomicLocalBackend().put(b'new', file)
    assert e.value.errno == errno.ENOSPC
    assert file.read_bytes() == b'old'


def test_text_and_missing_folders(tmp_path):
    write_whole('größer', tmp_path / 'new' / 'a.txt')
    assert (tmp_path / 'new' / 'a.txt').read_text(encoding='utf-8') == 'größer'
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['a.txt']


def test_an_interruption_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / 'a.txt'
    write_whole('old', file)

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'fsync', interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole('new', file)
    assert file.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [file]
