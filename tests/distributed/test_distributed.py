"""Trainings with two processes on the CPU."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TRAIN = ROOT / 'tools/train.py'
SHAPES = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'


def free_port():
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return str(sock.getsockname()[1])


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


# What launchers set for each of two processes.
LAUNCHERS = {
    'pytorch': lambda rank: dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE='2'),
    'mpi': lambda rank: {
        'OMPI_COMM_WORLD_RANK': rank,
        'OMPI_COMM_WORLD_LOCAL_RANK': rank,
        'OMPI_COMM_WORLD_SIZE': '2',
    },
    'slurm': lambda rank: {
        'SLURM_PROCID': rank,
        'SLURM_LOCALID': rank,
        'SLURM_NTASKS': '2',
        'SLURM_NODELIST': 'localhost',
    },
}


@pytest.fixture
def run_two(fork):
    """Runs a Python file in two processes, which find each other, and returns their outputs."""

    def run(launcher, *arguments, cwd, **variables):
        address = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port())
        env = dict(PYTHONPATH=FOLDERS, **address, **variables)
        processes = [
            fork(*arguments, cwd=cwd, env=env | LAUNCHERS[launcher](str(rank))) for rank in range(2)
        ]
        return [finish() for finish in processes]

    return run


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


def assert_equal(first, second):
    """All parameters and temperatures; the running statistics are each process's own."""
    names = [name for name in first if 'running_' not in name]
    assert any(name.endswith('temperature') for name in names)
    assert [name for name in names if not torch.equal(first[name], second[name])] == []


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


def test_searches_draw_the_same_and_end_equal(tmp_path, run_two):
    script = HERE / 'tiny_search_training.py'
    outputs = run_two('pytorch', script, True, cwd=tmp_path, CUDA_VISIBLE_DEVICES='')
    assert not any('refused' in output for output in outputs)
    first, second = (
        torch.load(tmp_path / f'rank_{rank}.result', weights_only=True) for rank in range(2)
    )
    assert first['draws'] == second['draws']
    assert len(set(map(tuple, first['draws']))) > 3
    assert first['history'] == second['history']
    assert not torch.isin(first['random'], second['random']).any()
    # One image of seven is there twice, so that each process has four.
    assert len({*first['images'], *second['images']}) == 7
    assert_equal(first['state'], second['state'])
    assert first['state']['backbone.logits'].abs().max() > 0.1


def test_searches_need_wrappers_that_find_unused_parameters(tmp_path, run_two):
    script = HERE / 'tiny_search_training.py'
    outputs = run_two('pytorch', script, False, cwd=tmp_path, CUDA_VISIBLE_DEVICES='')
    assert all('find_unused_parameters=True' in output for output in outputs)
