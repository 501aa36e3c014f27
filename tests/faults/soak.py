"""Kills a training again and again, resumes it, and shows that nothing is lost by that.

After each kill every checkpoint that a resumed run could find is read whole. In the end the run
is let to finish, and its weights are compared with those of a run that was never stopped. With two
processes one of them is killed, by turns.
"""

import argparse
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import torch

import mmdet_hadaptive  # noqa: F401  (allows what MMEngine's checkpoints hold)
from mmdet_hadaptive.datasets import make_shapes

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CONFIG = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'
# A checkpoint is written, last_checkpoint is rewritten, the outdated checkpoint is removed: between
# and after these stop_points.py lets the training wait.
STOP_POINTS = ('before pointer', 'before removal', 'after removal')
DURING_EPOCH, DURING_WRITING = 'in training', 'while a file was being written'


def write_config(folder, epochs, batch_size):
    """The shapes config with four short iterations an epoch and one checkpoint kept.

    Its learning rate stays: that of the shapes config is zero after nine epochs, and weights that
    do not change any more are always those of an uninterrupted run.
    """
    (folder / 'soak.py').write_text(f"""
_base_ = {str(CONFIG)!r}
custom_imports = dict(imports=['mmdet_hadaptive', 'stop_points'])
train_dataloader = dict(batch_size={batch_size}, num_workers=1)
val_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs={epochs}, val_interval=3)
param_scheduler = []
optim_wrapper = dict(optimizer=dict(lr=1e-3))
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=1))
""")


def start(folder, name, processes, stop=''):
    tool = [ROOT / 'tools/train.py', 'soak.py', '--work-dir', name, '--resume']
    command = [sys.executable, '-W', 'ignore', *tool]
    if processes > 1:
        with socket.socket() as sock:
            sock.bind(('127.0.0.1', 0))
            port = sock.getsockname()[1]
        launcher = ['-m', 'torch.distributed.run', f'--nproc_per_node={processes}']
        options = [f'--master_port={port}', *tool, '--launcher', 'pytorch']
        command = [sys.executable, '-W', 'ignore', *launcher, *options]
    return subprocess.Popen(
        list(map(str, command)),
        cwd=folder,
        env={
            **os.environ,
            'OMP_NUM_THREADS': '1',
            'PYTHONPATH': os.pathsep.join([str(HERE), os.environ.get('PYTHONPATH', '')]),
            'SOAK_STOP': stop,
        },
        stdout=(folder / f'{name}.log').open('a'),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def kill(process, rank=None):
    """Kills all processes, or one of those that torchrun has started; it ends the others."""
    if rank is not None:
        os.kill(find_process(process.pid, rank), signal.SIGKILL)
        assert process.wait(120) != 0
    # Workers that load data may be left.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def find_process(launcher, rank):
    for path in Path('/proc').glob('[0-9]*'):
        try:
            parent = int(re.search(r'PPid:\t(\d+)', (path / 'status').read_text())[1])
            variables = (path / 'environ').read_bytes().split(b'\0')
        except OSError:
            continue
        if parent == launcher and f'LOCAL_RANK={rank}'.encode() in variables:
            return int(path.name)
    raise AssertionError(f'no process {rank} of {launcher}')


def wait_for(condition, process, timeout=900):
    """Polls until the condition holds; false if the process ended first."""
    end = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None:
            return False
        if time.monotonic() > end:
            kill(process)
            raise TimeoutError('the training makes no progress')
        time.sleep(0.0005)
    return True


def checked_epoch(work_dir):
    """Reads every checkpoint, and returns the epoch from which a resumed run would start."""
    for path in work_dir.glob('*.pth'):
        torch.load(path, weights_only=True)
    pointer = work_dir / 'last_checkpoint'
    if not pointer.exists():
        assert not list(work_dir.glob('epoch_*.pth'))[1:], 'checkpoints that nothing points to'
        return 0
    return torch.load(work_dir.parent / pointer.read_text(), weights_only=True)['meta']['epoch']


def soak(folder, kills, seed=0, processes=1):
    """Runs it all in a folder.

    Args:
        folder: Working directory, to be empty.
        kills: How often to kill: one half in training, a quarter while a file is being written, a
            quarter between writing a checkpoint, rewriting last_checkpoint and removing the old
            one.
        seed: Seed of the moments.
        processes: Processes of the training; of several one is killed.
    """
    began = time.monotonic()
    generator = random.Random(seed)
    # Enough for what is waited for between two kills: two epochs, three from the start.
    epochs = 3 * kills + 3
    make_shapes(folder / 'data' / 'shapes', 16, 8)
    write_config(folder, epochs, batch_size=4 // processes)
    reference = start(folder, 'uninterrupted', processes)
    assert reference.wait() == 0, (folder / 'uninterrupted.log').read_text()[-3000:]

    work_dir, log, stopped = folder / 'killed', folder / 'killed.log', folder / 'stopped'
    moments = [STOP_POINTS[n // 4 % 3] if n % 4 == 1 else DURING_EPOCH for n in range(kills)]
    moments[3::4] = [DURING_WRITING] * len(moments[3::4])
    epoch, half_written = 0, 0
    for number, moment in enumerate(moments):
        saves, iterations = generator.randint(1, 2), generator.randint(1, 7)
        stop = f'{moment}:{saves}:{stopped}' if moment in STOP_POINTS else ''
        process = start(folder, 'killed', processes, stop)
        begin = log.stat().st_size

        def lines(begin=begin):
            return log.read_text()[begin:]

        def count(line, least, lines=lines):
            return lambda: lines().count(line) >= least

        alive = wait_for(count('Epoch(train)', 1), process)
        if alive and moment == DURING_EPOCH:
            wait_for(count('Epoch(train)', iterations), process)
            time.sleep(generator.uniform(0, 0.2))
        elif alive and moment == DURING_WRITING:
            wait_for(count('Saving checkpoint', saves), process)
            wait_for(lambda: list(work_dir.glob('*.unfinished')), process)
            time.sleep(generator.uniform(0, 0.02))
        elif alive:
            wait_for(stopped.exists, process)
        assert process.poll() is None, f'ended before kill {number + 1}: {lines()[-3000:]}'
        rank = number % processes if processes > 1 else None
        kill(process, rank)
        resumed = re.search(r'resumed epoch: (\d+)', lines())
        assert int(resumed[1] if resumed else 0) == epoch, 'not resumed from the last checkpoint'
        stopped.unlink(missing_ok=True)
        unfinished = bool(list(work_dir.glob('*.unfinished')))
        half_written += unfinished
        last, epoch = epoch, checked_epoch(work_dir)
        assert epoch >= last, f'epoch {last} was saved, now {epoch} is found'
        print(
            f'kill {number + 1:2d} {moment}{"" if rank is None else f" of process {rank}"}: '
            f'epoch {epoch} saved, all checkpoints whole'
            + (', one write cut off' if unfinished else ''),
            flush=True,
        )
    assert start(folder, 'killed', processes).wait() == 0, log.read_text()[-3000:]
    assert not list(work_dir.glob('*.unfinished'))
    states = [
        torch.load(folder / name / f'epoch_{epochs}.pth', weights_only=True)
        for name in ('uninterrupted', 'killed')
    ]
    for part in ('state_dict', 'ema_state_dict'):
        first, second = (state[part] for state in states)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), f'{part} differ'
    counts = ', '.join(f'{count} {moment}' for moment, count in Counter(moments).items())
    print(
        f'{kills} kills of {processes} process(es), seed {seed}: {counts}; {half_written} cut off '
        f'a write. Nothing was lost; after {epochs} epochs bitwise the weights of a run that was '
        f'never stopped ({(time.monotonic() - began) / 60:.0f} minutes)'
    )


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--processes', type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        soak(Path(name), args.kills, args.seed, args.processes)
