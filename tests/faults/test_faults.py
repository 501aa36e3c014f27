"""What happens to long runs: kills, full disks, folders that cannot be written, invalid losses."""

import ctypes
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from . import soak

ROOT = Path(__file__).resolve().parents[2]
SHAPES = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'
OPTIONS = (
    '--cfg-options',
    'train_dataloader.num_workers=0',
    'train_dataloader.batch_size=4',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'default_hooks.logger.interval=1',
)


def test_killed_trainings_lose_nothing(tmp_path, capsys):
    soak.soak(tmp_path, kills=2, epochs=12)
    output = capsys.readouterr().out
    assert output.count('all checkpoints whole') == 2
    assert 'bitwise the weights' in output


def train(shapes, work_dir, *options, limit=None):
    tool = ROOT / 'tools/train.py'
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', tool, SHAPES, '--work-dir', work_dir, *OPTIONS, *options],
        cwd=shapes.parents[1],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
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


def test_invalid_loss_names_the_last_good_checkpoint(tmp_path):
    from mmdet_hadaptive.hooks.invalid_loss import _last_finite_checkpoint

    for epoch, value in enumerate((0.0, 1.0, float('nan'))):
        path = tmp_path / f'epoch_{epoch}.pth'
        torch.save(dict(state_dict=dict(weight=torch.full((2,), value))), path)
        os.utime(path, (epoch, epoch))
    assert _last_finite_checkpoint(tmp_path) == tmp_path / 'epoch_1.pth'
