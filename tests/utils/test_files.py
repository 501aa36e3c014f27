import errno
import os
from pathlib import Path

import pytest

from mmdet_hadaptive.engine import AtomicLocalBackend
from mmdet_hadaptive.utils.files import write_all_whole, write_whole, write_whole_folder


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


def test_files_that_belong_together_are_all_written_or_none(tmp_path, monkeypatch):
    files = {tmp_path / name: b'old' for name in ('net.bin', 'net.json', 'net.xml')}
    write_all_whole(files)
    count = 0

    def full_at_the_third(descriptor):
        nonlocal count
        count += 1
        if count == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full_at_the_third)
    with pytest.raises(OSError, match=r'cannot write .*net\.bin, .*net\.xml \(0\.0 MiB\); .* free'):
        write_all_whole(dict.fromkeys(files, 'new'))
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == files


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


def read_folder(folder):
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob('*')
        if file.is_file()
    }


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / 'page'
    for files in ({'a.txt': b'old', 'b/c.txt': b'old'}, {'b/c.txt': b'new'}):
        write_whole_folder(files, folder)
        assert read_folder(tmp_path) == {f'page/{name}': files[name] for name in files}


@pytest.mark.parametrize('error', [OSError(errno.ENOSPC, 'full'), KeyboardInterrupt()])
def test_a_folder_that_fails_leaves_the_old_one(tmp_path, monkeypatch, error):
    folder = tmp_path / 'page'
    write_whole_folder({'a.txt': b'old'}, folder)
    synchronised = []

    def fail(descriptor):
        synchronised.append(descriptor)
        if len(synchronised) == 2:
            raise error

    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(type(error)):
        write_whole_folder({'a.txt': b'new', 'b.txt': b'new'}, folder)
    assert read_folder(tmp_path) == {'page/a.txt': b'old'}


def test_a_folder_that_cannot_be_renamed_stays(tmp_path, monkeypatch):
    folder = tmp_path / 'page'
    write_whole_folder({'a.txt': b'old'}, folder)
    replace = Path.replace

    def fail(self, target):
        if self.name == 'page.unfinished':
            raise PermissionError(errno.EACCES, 'not allowed')
        return replace(self, target)

    monkeypatch.setattr(Path, 'replace', fail)
    with pytest.raises(PermissionError):
        write_whole_folder({'a.txt': b'new'}, folder)
    assert read_folder(tmp_path) == {'page/a.txt': b'old'}


def test_a_folder_after_a_process_was_killed_between_two_renamings(tmp_path, monkeypatch):
    (tmp_path / 'page.replaced.unfinished').mkdir()
    (tmp_path / 'page.replaced.unfinished/a.txt').write_bytes(b'old')

    def fail(descriptor):
        raise OSError(errno.ENOSPC, 'full')

    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(OSError, match='make room'):
        write_whole_folder({'a.txt': b'new'}, tmp_path / 'page')
    assert read_folder(tmp_path) == {'page/a.txt': b'old'}


def test_names_of_255_bytes(tmp_path):
    for name in ('n' * 255, 'ä' * 127 + 'n'):
        write_whole('old', tmp_path / name)
        write_whole('new', tmp_path / name)
        assert (tmp_path / name).read_text() == 'new'
    assert len([*tmp_path.iterdir()]) == 2
