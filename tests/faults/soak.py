"""Kills a training again and again, resumes it, and shows that nothing is lost by that.

After each kill every checkpoint that a resumed run could find is read whole. In the end the run
is let to finish, and its weights are compared with those of a run that was never stopped. With two
processes one of them is killed, by turns.
"""

import argparse
import multiprocessing
import os
import random
import re
import runpy
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import torch
from mmengine.config import config

import mmdet_hadaptive  # noqa: F401  (allows what MMEngine's checkpoints hold)
from mmdet_hadaptive.datasets import make_shapes

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CONFIG = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'
# A checkpoint is written, last_checkpoint is rewritten, the outdated checkpoint is removed: between
# and after these stop_points.py lets the training wait.
STOP_POINTS = ('before pointer', 'before removal', 'after removal')
DURING_EPOCH, DURING_WRITING = 'in training', 'while a file was being written'


# What takes most of the time until a training begins is imported once, in a process from which all
# trainings are forked.
FORK_SERVER = multiprocessing.get_context('forkserver')
FORK_SERVER.set_forkserver_preload(
    ['mmdet_hadaptive', 'mmdet.datasets', 'mmdet.engine', 'mmdet.evaluation', 'mmdet.models']
)


def write_config(folder, epochs, batch_size):
    """The shapes config with small images, two short iterations an epoch, one checkpoint kept.

    Its learning rate stays: that of the shapes config is zero after nine epochs, and weights that
    do not change any more are always those of an uninterrupted run.
    """
    (folder / 'soak.py').write_text(f"""
_base_ = {str(CONFIG)!r}
custom_imports = dict(imports=['mmdet_hadaptive', 'stop_points'])
train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[2].scale = test_pipeline[1].scale = (64, 64)
train_dataloader = dict(
    batch_size={batch_size}, num_workers=1, dataset=dict(dataset=dict(pipeline=train_pipeline))
)
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline)
)
train_cfg = dict(max_epochs={epochs}, val_interval=3)
param_scheduler = []
optim_wrapper = dict(optimizer=dict(lr=1e-3))
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=1))
""")


def start(folder, name, processes, stop=''):
    """Starts a training as a list of processes."""
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        port = sock.getsockname()[1]
    training = []
    for rank in range(processes):
        variables = {'SOAK_STOP': stop}
        if processes > 1:
            variables |= dict(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes),
                MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port),
            )  # fmt: skip
        training.append(FORK_SERVER.Process(target=train, args=(folder, name, variables)))
        training[-1].start()
    return training


def train(folder, name, variables):
    """The training, in a process and a process group of its own."""
    os.setsid()
    os.chdir(folder)
    os.environ.update(variables)
    for output in (1, 2):
        os.dup2(os.open(f'{name}.log', os.O_WRONLY | os.O_CREAT | os.O_APPEND), output)
    torch.set_num_threads(1)
    sys.path.insert(0, str(HERE))
    # MMEngine lays out the config's text for each checkpoint, which takes longer than the epoch.
    config.FormatCode = lambda text, **options: (text, False)
    sys.argv = ['train.py', 'soak.py', '--work-dir', name, '--resume']
    if 'RANK' in variables:
        sys.argv += ['--launcher', 'pytorch']
    runpy.run_path(str(ROOT / 'tools/train.py'), run_name='__main__')


def is_alive(training):
    return all(process.is_alive() for process in training)


def succeeds(training):
    """Waits for the end of a training."""
    for process in training:
        process.join()
    return all(process.exitcode == 0 for process in training)


def kill(training, number):
    """Kills one process; the others are ended as by a launcher, which needs a moment to notice."""
    training[number].kill()
    for process in training:
        process.join(0.3)
        process.terminate()
        process.join()
        # Workers that load data may be left.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(condition, training, timeout=900):
    """Polls until the condition holds; false if the training ended first."""
    end = time.monotonic() + timeout
    while not condition():
        if not is_alive(training):
            return False
        if time.monotonic() > end:
            kill(training, 0)
            raise TimeoutError('the training makes no progress')
        time.sleep(0.001)
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
    epochs = 2 * kills + 3
    make_shapes(folder / 'data' / 'shapes', 8, 4)
    write_config(folder, epochs, batch_size=4 // processes)
    reference = start(folder, 'uninterrupted', processes)
    assert succeeds(reference), (folder / 'uninterrupted.log').read_text()[-3000:]

    work_dir, log, stopped = folder / 'killed', folder / 'killed.log', folder / 'stopped'
    log.touch()
    moments = [STOP_POINTS[n // 4 % 3] if n % 4 == 1 else DURING_EPOCH for n in range(kills)]
    moments[3::4] = [DURING_WRITING] * len(moments[3::4])
    epoch, half_written = 0, 0
    for number, moment in enumerate(moments):
        saves, iterations = generator.randint(1, 2), generator.randint(1, 3)
        stop = f'{moment}:{saves}:{stopped}' if moment in STOP_POINTS else ''
        begin = log.stat().st_size
        training = start(folder, 'killed', processes, stop)

        def lines(begin=begin):
            with log.open('rb') as file:
                file.seek(begin)
                return file.read().decode(errors='replace')

        def count(line, least, lines=lines):
            return lambda: lines().count(line) >= least

        alive = wait_for(count('Epoch(train)', 1), training)
        if alive and moment == DURING_EPOCH:
            wait_for(count('Epoch(train)', iterations), training)
            time.sleep(generator.uniform(0, 0.2))
        elif alive and moment == DURING_WRITING:
            wait_for(count('Saving checkpoint', saves), training)
            wait_for(lambda: list(work_dir.glob('*.unfinished')), training)
            time.sleep(generator.uniform(0, 0.02))
        elif alive:
            wait_for(stopped.exists, training)
        assert is_alive(training), f'ended before kill {number + 1}: {lines()[-3000:]}'
        # By turns, but not always the same one at the same moments.
        victim = (number + number // 4) % processes
        kill(training, victim)
        resumed = re.search(r'resumed epoch: (\d+)', lines())
        assert int(resumed[1] if resumed else 0) == epoch, 'not resumed from the last checkpoint'
        stopped.unlink(missing_ok=True)
        unfinished = bool(list(work_dir.glob('*.unfinished')))
        half_written += unfinished
        last, epoch = epoch, checked_epoch(work_dir)
        assert epoch >= last, f'epoch {last} was saved, now {epoch} is found'
        print(
            f'kill {number + 1:2d} {moment}{f" of process {victim}" if processes > 1 else ""}: '
            f'epoch {epoch} saved, all checkpoints whole'
            + (', one write cut off' if unfinished else ''),
            flush=True,
        )
    assert succeeds(start(folder, 'killed', processes)), log.read_text()[-3000:]
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
