"""What happens to long runs: kills, full disks, folders that cannot be written, invalid losses."""

import ctypes
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SHAPES = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'
OPTIONS = (
    '--cfg-options',
    'train_dataloader.num_workers=0',
    'train_dataloader.batch_size=4',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'default_hooks.logger.interval=1',
)


def test_killed_trainings_lose_nothing(tmp_path, run):
    output = run(HERE / 'soak.py', '--kills', 2, cwd=tmp_path)
    assert output.count('all checkpoints whole') == 2
    assert 'kill 2 before pointer' in output
    assert 'bitwise the weights' in output


def train(shapes, work_dir, *options, limit=None, config=SHAPES):
    tool = ROOT / 'tools/train.py'
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', tool, config, '--work-dir', work_dir, *OPTIONS, *options],
        cwd=shapes.parents[1],
        env={
            **os.environ,
            'OMP_NUM_THREADS': '1',
            'PYTHONPATH': os.pathsep.join([str(HERE), os.environ.get('PYTHONPATH', '')]),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=limit,
        timeout=300,
    )
    assert result.returncode == 1, result.stdout[-3000:]
    return result.stdout


def test_full_disk(shapes, tmp_path):
    # The kernel refuses to write more than this to a file, as it does on a full disk.
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    output = train(shapes, tmp_path / 'run', 'train_cfg.max_epochs=1', limit=limit)
    message = output.strip().splitlines()[-2:]
    assert re.search(r'File too large: .*epoch_1\.pth \(\d+\.\d MiB\) was not written', message[0])
    assert 'MiB are free there' in message[0]
    assert '--resume' in message[1]
    assert not list(tmp_path.glob('run/*.pth*'))


def test_read_only_work_dir(shapes, tmp_path):
    def obey_permissions():
        # Root may write anywhere, unless it gives up CAP_DAC_OVERRIDE (1) by PR_CAPBSET_DROP.
        if os.geteuid() == 0 and ctypes.CDLL(None).prctl(24, 1, 0, 0, 0):
            raise OSError('cannot give up the right to write everywhere')

    folder = tmp_path / 'read_only'
    folder.mkdir(mode=0o555)
    try:
        output = train(shapes, folder / 'run', limit=obey_permissions)
    except subprocess.SubprocessError:
        pytest.skip('root without CAP_SETPCAP can write everywhere: run as another user')
    assert f"error: [Errno 13] Permission denied: '{folder / 'run'}" in output
    assert '--work-dir' in output.splitlines()[-1]


def test_invalid_loss(shapes, tmp_path):
    options = ('optim_wrapper.optimizer.lr=1e30', 'train_cfg.max_epochs=3')
    output = train(shapes, tmp_path / 'run', *options)
    message = output[output.index('FloatingPointError') :]
    found = re.search(r'not finite in iteration (\d+) \(epoch (\d+), batch (\d+)\): loss', message)
    iteration, epoch, batch = map(int, found.groups())
    assert iteration == 4 * (epoch - 1) + batch > 1
    images = re.search(r'images: (.*)', message)[1].split(', ')
    assert len(images) == 4
    assert all((shapes.parents[1] / image).is_file() for image in images)
    assert 'last checkpoint with finite weights: none in' in message
    assert 'remedy' in message


def test_invalid_weights_are_not_saved(shapes, tmp_path):
    config = tmp_path / 'invalid.py'
    config.write_text(f"""
_base_ = {str(SHAPES)!r}
custom_imports = dict(imports=['mmdet_hadaptive', 'invalid_weights'])
custom_hooks = [*_base_.custom_hooks, dict(type='InvalidWeightsHook')]
""")
    output = train(shapes, tmp_path / 'run', 'train_cfg.max_epochs=3', config=config)
    message = output[output.index('FloatingPointError') :]
    assert '1 weights are not finite after iteration 8, and are not saved: ' in message
    assert f'last checkpoint with finite weights: {tmp_path / "run/epoch_1.pth"}' in message
    assert [path.name for path in tmp_path.glob('run/*.pth*')] == ['epoch_1.pth']
