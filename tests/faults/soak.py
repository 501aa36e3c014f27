"""Kills a training again and again, resumes it, and shows that nothing is lost by that.

After each kill every checkpoint that a resumed run could find is read whole. In the end the run
is let to finish, and its weights are compared with those of a run that was never stopped.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import mmdet_hadaptive  # noqa: F401  (allows what MMEngine's checkpoints hold)
from mmdet_hadaptive.datasets import make_shapes

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'
DURING_EPOCH, DURING_WRITING = 'in training', 'while a checkpoint was being written'


def command(work_dir, epochs):
    return [
        sys.executable, '-W', 'ignore', ROOT / 'tools/train.py', CONFIG,
        '--work-dir', work_dir, '--resume',
        '--cfg-options', f'train_cfg.max_epochs={epochs}', 'train_cfg.val_interval=3',
        'train_dataloader.batch_size=4', 'train_dataloader.num_workers=1',
        'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False',
        'default_hooks.logger.interval=1', 'default_hooks.checkpoint.max_keep_ckpts=1',
    ]  # fmt: skip


def start(folder, name, epochs):
    log = (folder / f'{name}.log').open('a')
    return subprocess.Popen(
        list(map(str, command(name, epochs))),
        cwd=folder,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def kill(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


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
    """Reads every checkpoint, and returns the epoch from which a resumed run would go on."""
    for path in work_dir.glob('*.pth'):
        torch.load(path, weights_only=True)
    pointer = work_dir / 'last_checkpoint'
    if not pointer.exists():
        assert not list(work_dir.glob('epoch_*.pth'))[1:], 'checkpoints that nothing points to'
        return 0
    return torch.load(work_dir.parent / pointer.read_text(), weights_only=True)['meta']['epoch']


def soak(folder, kills, epochs, seed=0):
    """Runs it all in a folder.

    Args:
        folder: Working directory, to be empty.
        kills: How often to kill, half of them while a checkpoint is being written.
        epochs: Length of the training; it must not end before the last kill.
        seed: Seed of the moments.
    """
    generator = random.Random(seed)
    make_shapes(folder / 'data' / 'shapes', 16, 8)
    reference = start(folder, 'uninterrupted', epochs)
    assert reference.wait() == 0, (folder / 'uninterrupted.log').read_text()[-3000:]

    work_dir, log = folder / 'killed', folder / 'killed.log'
    epoch, half_written = 0, 0
    for number in range(kills):
        moment = (DURING_EPOCH, DURING_WRITING)[number % 2]
        process = start(folder, 'killed', epochs)
        begin = log.stat().st_size

        def lines(begin=begin):
            return log.read_text()[begin:]

        alive = wait_for(lambda: 'Epoch(train)' in lines(), process)
        if alive and moment == DURING_EPOCH:
            time.sleep(generator.uniform(0, 4))
        elif alive:
            nth = lines().count('Saving checkpoint') + generator.randint(1, 3)

            def saving(least=nth, lines=lines):
                return lines().count('Saving checkpoint') >= least

            wait_for(saving, process)
            wait_for(lambda: list(work_dir.glob('*.unfinished')), process)
            time.sleep(generator.uniform(0, 0.02))
        assert process.poll() is None, f'ended before kill {number + 1}: {lines()[-3000:]}'
        kill(process)
        resumed = re.search(r'resumed epoch: (\d+)', lines())
        assert int(resumed[1] if resumed else 0) == epoch, 'not resumed from the last checkpoint'
        unfinished = bool(list(work_dir.glob('*.unfinished')))
        half_written += unfinished
        last, epoch = epoch, checked_epoch(work_dir)
        assert epoch >= last, f'epoch {last} was saved, now {epoch} is found'
        print(
            f'kill {number + 1:2d} {moment}: epoch {epoch} saved, all checkpoints whole'
            + (', one write cut off' if unfinished else ''),
            flush=True,
        )
    assert start(folder, 'killed', epochs).wait() == 0, log.read_text()[-3000:]
    assert not list(work_dir.glob('*.unfinished'))
    states = [
        torch.load(folder / name / f'epoch_{epochs}.pth', weights_only=True)
        for name in ('uninterrupted', 'killed')
    ]
    for part in ('state_dict', 'ema_state_dict'):
        first, second = (state[part] for state in states)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), f'{part} differ'
    print(
        f'{kills} kills, {half_written} of them within a write; after {epochs} epochs bitwise '
        'the weights of a run that was never stopped'
    )


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=24)
    parser.add_argument('--epochs', type=int, default=120)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        soak(Path(name), args.kills, args.epochs, args.seed)
