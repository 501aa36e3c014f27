"""What happens to long runs: kills, full disks, folders that cannot be written, invalid losses."""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from short_training import SHORT_TRAINING

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TRAIN = ROOT / 'tools/train.py'
SHAPES = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'
OPTIONS = ('--cfg-options', *SHORT_TRAINING)


def test_killed_trainings_lose_nothing(tmp_path, run_warm):
    output = run_warm(HERE / 'soak.py', '--kills', 2, cwd=tmp_path)
    assert output.count('all checkpoints whole') == 2
    assert 'kill 2 before pointer' in output
    assert 'bitwise the weights' in output


@pytest.fixture
def train(shapes, run_warm):
    def run(work_dir, *options, config=SHAPES, program=TRAIN):
        return run_warm(
            program, config, '--work-dir', work_dir, *OPTIONS, *options,
            cwd=shapes.parents[1], env=dict(PYTHONPATH=str(HERE)), code=1,
        )  # fmt: skip

    return run


def test_full_disk(train, tmp_path):
    program = tmp_path / 'limited.py'
    # The kernel refuses to write more than this to a file, as it does on a full disk.
    program.write_text(f"""
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
runpy.run_path({str(TRAIN)!r}, run_name='__main__')
""")
    output = train(tmp_path / 'run', program=program)
    message = output.strip().splitlines()[-2:]
    assert re.search(r'File too large: cannot write .*epoch_1\.pth \(\d+\.\d MiB\)', message[0])
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
        # The right is lost when a program is started.
        result = subprocess.run(
            [sys.executable, '-W', 'ignore', TRAIN, SHAPES, '--work-dir', folder / 'run', *OPTIONS],
            cwd=shapes.parents[1],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=obey_permissions,
            timeout=300,
        )
    except subprocess.SubprocessError:
        pytest.skip('root without CAP_SETPCAP can write everywhere: run as another user')
    assert result.returncode == 1
    assert f"error: [Errno 13] Permission denied: '{folder / 'run'}" in result.stdout
    assert '--work-dir' in result.stdout.splitlines()[-1]


def test_invalid_loss(train, shapes, tmp_path):
    options = ('optim_wrapper.optimizer.lr=1e30', 'train_cfg.max_epochs=3')
    output = train(tmp_path / 'run', *options)
    message = output[output.index('error: the loss is') :]
    found = re.search(r'not finite in iteration (\d+) \(epoch (\d+), batch (\d+)\): loss', message)
    iteration, epoch, batch = map(int, found.groups())
    assert iteration == 4 * (epoch - 1) + batch > 1
    images = re.search(r'images: (.*)', message)[1].split(', ')
    assert len(images) == 4
    assert all((shapes.parents[1] / image).is_file() for image in images)
    assert 'last checkpoint with finite weights: none in' in message
    assert 'remedy' in message


def test_invalid_weights_are_not_saved(train, tmp_path):
    config = tmp_path / 'invalid.py'
    config.write_text(f"""
_base_ = {str(SHAPES)!r}
custom_imports = dict(imports=['mmdet_hadaptive', 'invalid_weights'])
custom_hooks = [*_base_.custom_hooks, dict(type='InvalidWeightsHook')]
""")
    output = train(tmp_path / 'run', 'train_cfg.max_epochs=3', config=config)
    message = output[output.index('error: ') :]
    assert '1 weights are not finite after iteration 8, and are not saved: ' in message
    assert f'last checkpoint with finite weights: {tmp_path / "run/epoch_1.pth"}' in message
    assert [path.name for path in tmp_path.glob('run/*.pth*')] == ['epoch_1.pth']
