"""Trainings with two processes on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from two_processes import assert_equal, free_port

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TRAIN = ROOT / 'tools/train.py'
SHAPES = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'


# The modules that the trainings are to import.
FOLDERS = os.pathsep.join([str(HERE), str(ROOT / 'tests/helpers')])


def start_dist_train(*arguments, cwd):
    """Runs our script as a user does."""
    result = subprocess.run(
        [ROOT / 'tools/dist_train.sh', *map(str, arguments)],
        cwd=cwd,
        env={
            **os.environ,
            'PYTHONPATH': os.pathsep.join([FOLDERS, os.environ.get('PYTHONPATH', '')]),
            'PYTHONWARNINGS': 'ignore',
            'OMP_NUM_THREADS': '1',
            'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
            'PORT': free_port(),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    return result.stdout


@pytest.fixture
def config(shapes, tmp_path):
    """The shapes config in few steps, recording what each process holds."""
    path = tmp_path / 'recorded.py'
    path.write_text(f"""
_base_ = {str(SHAPES)!r}
custom_imports = dict(imports=['mmdet_hadaptive', 'rank_recorder'])
custom_hooks = [*_base_.custom_hooks, dict(type='RankRecorder')]
train_dataloader = dict(batch_size=2, num_workers=0)
val_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(logger=dict(interval=1))
""")
    return path


def states(folder):
    return [torch.load(folder / f'rank_{rank}.state', weights_only=True) for rank in range(2)]


def test_dist_train_keeps_the_processes_equal_and_resumes(config, shapes, tmp_path, run_two):
    work = shapes.parents[1]
    out = tmp_path / 'run'
    options = ('--work-dir', out, '--cfg-options', 'default_hooks.logger.interval=1')
    output = start_dist_train(config, 2, *options, 'train_cfg.max_epochs=1', cwd=work)
    assert 'Epoch(train) [1][4/4]' in output.replace('[ ', '[')
    assert 'Epoch(val) [1]' in output
    first = states(out)
    assert_equal(*first)
    numbers = [torch.load(out / f'rank_{rank}.random', weights_only=True) for rank in range(2)]
    assert not torch.isin(*numbers).any(), 'both processes draw the same noise'
    temperatures = {v.item() for k, v in first[0].items() if k.endswith('temperature')}
    assert temperatures != {4.0}
    output, _ = run_two(
        'pytorch', TRAIN, config, '--launcher', 'pytorch', '--resume', *options,
        'train_cfg.max_epochs=2', cwd=work,
    )  # fmt: skip
    assert 'resumed epoch: 1, iter: 4' in output
    second = states(out)
    assert_equal(*second)
    for name in first[0]:
        if name.endswith('last_grad_norm'):
            assert first[0][name] != second[0][name]
        # Four steps of 0.5 % each from where it was, and not from 4.
        if name.endswith('temperature'):
            assert 0.995**4 - 1e-6 < second[0][name] / first[0][name] < 1.005**4 + 1e-6


@pytest.mark.parametrize('launcher', ['mpi', 'slurm'])
def test_other_launchers(config, shapes, tmp_path, launcher, run_two):
    out = tmp_path / 'run'
    command = (TRAIN, config, '--launcher', launcher, '--work-dir', out)
    run_two(launcher, *command, cwd=shapes.parents[1])
    assert_equal(*states(out))
    assert (out / 'epoch_1.pth').is_file()


@pytest.mark.parametrize('script', ['joint_gradient.py', 'channels_last_gradient.py'])
def test_gradients_are_those_of_the_joint_batch(tmp_path, script, run_two):
    outputs = run_two('pytorch', HERE / script, cwd=tmp_path, CUDA_VISIBLE_DEVICES='')
    for rank, output in enumerate(outputs):
        assert f'rank {rank}: gradients' in output
