import errno
import os
import runpy
import sys

import pytest

from mmdet_hadaptive.engine import AtomicLocalBackend
from mmdet_hadaptive.utils import mmdet_tools
from mmdet_hadaptive.utils.mmdet_tools import run_mmdet_tool


@pytest.fixture
def fail(monkeypatch):
    """Lets the tool of MMDetection do something else, and returns what it says at its end."""

    def run(do):
        monkeypatch.setattr(sys, 'argv', ['train.py', 'config.py'])
        monkeypatch.setattr(runpy, 'run_path', lambda *args, **kwargs: do())
        with pytest.raises(SystemExit) as error:
            run_mmdet_tool('train.py')
        return str(error.value)

    return run


def test_a_checkpoint_that_cannot_be_written_says_each_remedy_once(fail, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    message = fail(lambda: AtomicLocalBackend().put(b'new', tmp_path / 'epoch_1.pth'))
    assert 'epoch_1.pth' in message
    for remedy in ('make room', 'make the folder writable', '--work-dir', '--resume'):
        assert message.lower().count(remedy) == 1, message


def test_a_folder_that_cannot_be_written(fail):
    def refuse():
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), '/run')

    message = fail(refuse)
    assert "Permission denied: '/run'" in message
    for remedy in ('--work-dir', '--resume'):
        assert message.count(remedy) == 1, message


def test_other_errors_are_not_caught(monkeypatch):
    def missing(*args, **kwargs):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), 'image.jpg')

    monkeypatch.setattr(sys, 'argv', ['train.py', 'config.py'])
    monkeypatch.setattr(runpy, 'run_path', missing)
    with pytest.raises(FileNotFoundError):
        run_mmdet_tool('train.py')


@pytest.mark.parametrize(
    ('text', 'wrapper'),
    [
        ('', dict(type='MMDistributedDataParallel', find_unused_parameters='False')),
        (
            'find_unused_parameters = True',
            dict(type='MMDistributedDataParallel', find_unused_parameters='True'),
        ),
        # The user's own stays.
        ("model_wrapper_cfg = dict(type='Mine')", {}),
    ],
)
def test_several_processes_without_a_gpu(tmp_path, monkeypatch, text, wrapper):
    config = tmp_path / 'config.py'
    config.write_text(text)
    started, seen = [], []
    monkeypatch.setattr(mmdet_tools, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(
        mmdet_tools, 'init_dist', lambda launcher, backend: started.append((launcher, backend))
    )
    monkeypatch.setattr(runpy, 'run_path', lambda *args, **kwargs: seen.extend(sys.argv))
    monkeypatch.setattr(
        sys, 'argv', ['train.py', str(config), '--launcher', 'pytorch', '--cfg-options', 'a=1']
    )
    run_mmdet_tool('train.py')
    assert started == [('pytorch', 'gloo')]
    assert seen[:5] == ['train.py', str(config), '--launcher', 'pytorch', '--cfg-options']
    assert 'a=1' in seen[5:]
    options = dict(word.split('=') for word in seen[5:] if word.startswith('model_wrapper_cfg.'))
    found = {key.removeprefix('model_wrapper_cfg.'): value for key, value in options.items()}
    assert found.pop('device_ids') == 'None'
    found.pop('broadcast_buffers', None)
    assert found == wrapper
