import errno
import os
import sys

import pytest
import torch

from mmdet_hadaptive.engine import AtomicLocalBackend
from mmdet_hadaptive.models import HadaptiveNet
from mmdet_hadaptive.utils import detectors, mmdet_tools
from mmdet_hadaptive.utils.mmdet_tools import run_mmdet_tool

OPTION = 'find_unused_parameters=True'


@pytest.fixture
def run_tool(monkeypatch, tmp_path):
    """Lets MMDetection's tool do something else with the arguments that it is left with."""

    def run(do, *words, name='train.py', text=''):
        config = tmp_path / 'config.py'
        config.write_text(text or "optim_wrapper = dict(type='OptimWrapper')")
        imported = mmdet_tools._import_file

        def import_file(path):
            tool = imported(path)
            tool.main = lambda: do(tool.parse_args())
            return tool

        monkeypatch.setattr(mmdet_tools, '_import_file', import_file)
        monkeypatch.setattr(sys, 'argv', [name, *(words or [str(config)])])
        monkeypatch.delenv('LOCAL_RANK', raising=False)
        monkeypatch.chdir(tmp_path)
        run_mmdet_tool(name)

    return run


@pytest.fixture
def fail(run_tool):
    """What the tool says at its end."""

    def run(do=lambda arguments: None, *words, **options):
        with pytest.raises(SystemExit) as error:
            run_tool(do, *words, **options)
        return str(error.value)

    return run


def raising(error):
    def do(arguments):
        raise error

    return do


def test_a_checkpoint_that_cannot_be_written_says_each_remedy_once(fail, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    message = fail(lambda arguments: AtomicLocalBackend().put(b'new', tmp_path / 'epoch_1.pth'))
    assert 'epoch_1.pth' in message
    for remedy in ('make room', 'make the folder writable', '--work-dir', '--resume'):
        assert message.lower().count(remedy) == 1, message


def test_a_folder_that_cannot_be_written(fail):
    message = fail(raising(PermissionError(errno.EACCES, os.strerror(errno.EACCES), '/run')))
    assert "Permission denied: '/run'" in message
    for remedy in ('--work-dir', '--resume'):
        assert message.count(remedy) == 1, message


def test_other_errors_are_not_caught(run_tool):
    missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), 'image.jpg')
    with pytest.raises(FileNotFoundError):
        run_tool(raising(missing))


@pytest.mark.parametrize(
    ('error', 'remedy'),
    [
        (ValueError('Expected more than 1 value per channel when training, got x'), 'batch_size'),
        (AssertionError('`epoch_length` must be a positive integer, but got 0.'), 'batch_size'),
        (
            AssertionError('The `num_classes` (2) in A of B does not matches the length of `c` 3)'),
            'check_dataset',
        ),
        (AssertionError('should be a tuple. Add comma if number of classes is 1'), 'num_classes'),
        (RuntimeError('Can not find "auto_scale_lr" or so\nin the config'), 'base_batch_size'),
        (torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB.'), 'with_cp=True'),
        (RuntimeError('DataLoader worker (pid 3) is killed by signal: Bus error.'), 'shm-size'),
        (RuntimeError('DataLoader worker (pid 3) is killed by signal: Killed.'), 'fewer processes'),
        (ValueError('SyncBatchNorm layers only work with GPU modules'), "type 'BN'"),
        (RuntimeError('The server socket has failed: EADDRINUSE'), 'PORT='),
        (KeyError('Foo is not in the mmdet::model registry. See\nhttps://x'), 'custom_imports'),
        (ImportError('Please run "pip install future tensorboard"'), 'install'),
    ],
)
def test_what_libraries_say_is_kept_and_a_remedy_added(fail, error, remedy):
    said, _, added = fail(raising(error)).partition('\n  remedy: ')
    assert said == f'error: {error}'
    assert remedy in added


def test_errors_of_this_package_are_their_message(fail):
    def train(arguments):
        HadaptiveNet('small', out_indices=(9,))

    assert fail(train).startswith('error: out_indices must be rising and in 0..5')


def test_mixed_precision_needs_a_gpu(fail, run_tool, tmp_path, monkeypatch):
    amp = "optim_wrapper = dict(type='AmpOptimWrapper')"
    for words, text in [((tmp_path / 'config.py', '--amp'), ''), ((), amp)]:
        assert 'leave out --amp' in fail(lambda arguments: None, *map(str, words), text=text)
    monkeypatch.setattr(mmdet_tools, 'get_device', lambda: 'cuda')
    run_tool(lambda arguments: None, text=amp)


def test_files_that_are_not_there(fail, tmp_path):
    do = raising(AssertionError('it runs'))
    assert 'there is no config nowhere.py' in fail(do, 'nowhere.py')
    config = str(tmp_path / 'config.py')
    message = fail(do, text="_base_ = './base.py'")
    assert 'base.py' in message
    assert message.endswith('correct its _base_')
    assert 'there is no checkpoint a.pth' in fail(do, config, '--resume', 'a.pth')
    assert 'there is no checkpoint a.pth' in fail(do, config, 'a.pth', name='test.py')
    (tmp_path / 'a.pth').touch()
    message = fail(do, 'a.pth', config, name='test.py')
    assert message.startswith('error: a.pth is no config, whose name ends in .py or .json')
    assert message.endswith('name the config first, then the checkpoint')


@pytest.mark.parametrize('in_config', [False, True])
def test_a_work_directory_that_was_moved_is_resumed(run_tool, tmp_path, in_config):
    folder = tmp_path / 'moved'
    folder.mkdir()
    (folder / 'epoch_3.pth').touch()
    (folder / 'last_checkpoint').write_text('/old/machine/run/epoch_3.pth')
    words, text = ['--resume'], ''
    if in_config:
        words, text = [], "optim_wrapper = dict(type='OptimWrapper')\nresume = True"
    words = [str(tmp_path / 'config.py'), '--work-dir', str(folder), *words]
    resumed = []
    run_tool(lambda arguments: resumed.append(arguments.resume), *words, text=text)
    assert resumed == [str(folder / 'epoch_3.pth')]


@pytest.mark.parametrize('pointer', [None, '', '/old/epoch_3.pth'])
def test_where_a_training_stopped_is_not_guessed(fail, run_tool, tmp_path, pointer):
    folder = tmp_path / 'work_dirs/config'
    folder.mkdir(parents=True)
    words = (str(tmp_path / 'config.py'), '--resume')
    if pointer is None:
        # A training that begins.
        run_tool(lambda arguments: None, *words)
    else:
        (folder / 'last_checkpoint').write_text(pointer)
    (folder / 'epoch_2.pth').touch()
    message = fail(raising(AssertionError('it runs')), *words)
    assert '--resume work_dirs/config/epoch_2.pth' in message
    assert str(pointer or '') in message


@pytest.mark.parametrize(('classes', 'palette', 'random'), [(80, '', 0), (81, '', 2), (81, [1], 0)])
def test_more_classes_than_colours(run_tool, classes, palette, random):
    metainfo = dict(
        classes=tuple(map(str, range(classes))), **(dict(palette=[]) if palette else {})
    )
    dataset = dict(type='RepeatDataset', dataset=dict(type='CocoDataset', metainfo=metainfo))
    seen = []
    text = f"optim_wrapper = dict(type='OptimWrapper')\ntrain_dataloader = dict(dataset={dataset})"
    run_tool(lambda arguments: seen.append(arguments.cfg_options), text=text)
    assert list(seen[0].values()) == ['random'] * random


@pytest.mark.parametrize(
    ('learned', 'said'),
    [
        (['cat', 'dog'], ''),
        (
            ['person', 'dog'],
            'note: a.pth was trained with the classes person, dog; they are tested',
        ),
        (['dog', 'cat'], 'error: the config names the classes in the order cat, dog, but a.pth'),
    ],
)
def test_classes_are_tested_as_they_were_learned(run_tool, tmp_path, monkeypatch, learned, said):
    monkeypatch.setattr(detectors, 'load_detector', lambda *_: (None, learned))
    (tmp_path / 'a.pth').touch()
    dataset = dict(type='CocoDataset', metainfo=dict(classes=('cat', 'dog')))
    printed = []
    monkeypatch.setattr('builtins.print', printed.append)
    try:
        run_tool(
            lambda arguments: None,
            str(tmp_path / 'config.py'),
            'a.pth',
            name='test.py',
            text=f"default_scope = 'mmdet'\ntest_dataloader = dict(dataset={dataset})",
        )
    except SystemExit as error:
        printed.append(str(error))
    assert ' '.join(printed).startswith(said)
    assert bool(printed) == bool(said)


def test_a_data_set_that_finds_its_classes_in_its_folders(run_tool, tmp_path, monkeypatch):
    monkeypatch.setattr(detectors, 'load_detector', lambda *_: (None, ['cat', 'dog']))
    (tmp_path / 'a.pth').touch()
    text = (
        "default_scope = 'mmpretrain'\n"
        "custom_imports = dict(imports='mmpretrain.datasets')\n"
        "test_dataloader = dict(dataset=dict(type='mmpretrain.CustomDataset', data_root='images'))"
    )
    ran = []
    run_tool(ran.append, str(tmp_path / 'config.py'), 'a.pth', name='test.py', text=text)
    assert ran


def test_processes_that_mpi_has_started_know_their_gpu(run_tool, monkeypatch):
    monkeypatch.setenv('OMPI_COMM_WORLD_LOCAL_RANK', '1')
    ranks = []
    run_tool(lambda arguments: ranks.append(os.environ['LOCAL_RANK']))
    assert ranks == ['1']


def test_processes_that_nobody_has_started(fail, tmp_path, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    message = fail(lambda arguments: None, str(tmp_path / 'config.py'), '--launcher', 'pytorch')
    assert 'tools/dist_train.sh' in message


@pytest.mark.parametrize(
    ('text', 'wrapper'),
    [
        ('', dict(type='MMDistributedDataParallel', find_unused_parameters=False)),
        *(
            (text, dict(type='MMDistributedDataParallel', find_unused_parameters=True))
            for text in ('find_unused_parameters = True', OPTION)
        ),
        # The user's own stays.
        ("model_wrapper_cfg = dict(type='Mine')", {}),
    ],
)
def test_several_processes_without_a_gpu(tmp_path, run_tool, monkeypatch, text, wrapper):
    started, seen = [], []
    monkeypatch.setattr(mmdet_tools, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(
        mmdet_tools, 'init_dist', lambda launcher, backend: started.append((launcher, backend))
    )
    monkeypatch.setenv('RANK', '0')
    # The config is not the first word.
    words = ['--work-dir', 'out', str(tmp_path / 'config.py'), '--launcher', 'pytorch']
    words += ['--cfg-options', 'a=1']
    if text == OPTION:
        words.append(text)
        text = ''
    text = f"optim_wrapper = dict(type='OptimWrapper')\n{text}"
    run_tool(lambda arguments: seen.append(arguments.cfg_options), *words, text=text)
    assert started == [('pytorch', 'gloo')]
    assert seen[0]['a'] == 1
    options = {
        key.removeprefix('model_wrapper_cfg.'): value
        for key, value in seen[0].items()
        if key.startswith('model_wrapper_cfg.')
    }
    assert options.pop('device_ids') is None
    options.pop('broadcast_buffers', None)
    assert options == wrapper
