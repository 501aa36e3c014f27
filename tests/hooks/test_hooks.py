import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.runner import IterBasedTrainLoop
from torch.utils.data import DataLoader

from mmdet_hadaptive.hooks import AtomicCheckpointHook, EpochSeedHook


class RandomNumbers(torch.utils.data.Dataset):
    """Numbers from all generators that transforms use."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])


def runner_with(loader, epoch=0, seed=5):
    return SimpleNamespace(train_dataloader=loader, train_loop=None, seed=seed, epoch=epoch)


def numbers(epoch, seed=5, workers=2):
    loader = DataLoader(RandomNumbers(), num_workers=workers, worker_init_fn=lambda i: None)
    runner = runner_with(loader, epoch, seed)
    hook = EpochSeedHook()
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    return torch.cat([*loader, torch.rand(1, 3)])


@pytest.mark.parametrize('workers', [0, 2])
def test_epochs_have_their_own_numbers_whenever_they_are_run(workers):
    first = numbers(3, workers=workers)
    assert torch.equal(first, numbers(3, workers=workers))
    assert len(first.unique()) == first.numel()
    assert not torch.isin(first, numbers(4, workers=workers)).any()
    assert not torch.isin(first, numbers(3, seed=6, workers=workers)).any()


def test_trainings_that_count_iterations_are_refused():
    loader = DataLoader(RandomNumbers())
    runner = runner_with(loader)
    runner.train_loop = IterBasedTrainLoop(runner, loader, max_iters=2)
    with pytest.raises(ValueError, match='EpochBasedTrainLoop'):
        EpochSeedHook().before_train(runner)


def test_workers_that_live_on_are_refused():
    loader = DataLoader(RandomNumbers(), num_workers=1, persistent_workers=True)
    with pytest.raises(ValueError, match='persistent_workers=False'):
        EpochSeedHook().before_train(runner_with(loader))


class Saver:
    """As much of a runner as the checkpoint hook needs."""

    def __init__(self, work_dir):
        self.work_dir = str(work_dir)
        self.epoch = self.iter = 0
        self.logger = SimpleNamespace(info=print)
        self.message_hub = SimpleNamespace(
            runtime_info={}, update_info=self.update, get_info=lambda key: self.info[key]
        )
        self.info = self.message_hub.runtime_info
        self.seen = []

    def update(self, key, value):
        self.info[key] = value

    def save_checkpoint(self, out_dir, filename, backend_args=None, **kwargs):
        assert backend_args == dict(backend='atomic_local')
        files = sorted(path.name for path in Path(out_dir).glob('*.pth'))
        self.seen.append((filename, files))
        Path(out_dir, filename).write_bytes(b'whole')


def test_old_checkpoints_are_there_until_the_new_one_is(tmp_path):
    runner = Saver(tmp_path)
    (tmp_path / 'epoch_9.pth.unfinished').write_bytes(b'half')
    hook = AtomicCheckpointHook(max_keep_ckpts=1, save_best='mAP', rule='greater')
    hook.before_train(runner)
    assert not list(tmp_path.iterdir())
    for epoch in (1, 2):
        hook._save_checkpoint(runner)
        runner.epoch = epoch
        hook._save_best_checkpoint(runner, dict(mAP=0.1 * epoch))
    assert runner.seen == [
        ('epoch_1.pth', []),
        ('best_mAP_epoch_1.pth', ['epoch_1.pth']),
        # Saved again, as it is to hold the name of the best.
        ('epoch_1.pth', ['best_mAP_epoch_1.pth', 'epoch_1.pth']),
        ('epoch_2.pth', ['best_mAP_epoch_1.pth', 'epoch_1.pth']),
        ('best_mAP_epoch_2.pth', ['best_mAP_epoch_1.pth', 'epoch_2.pth']),
        ('epoch_2.pth', ['best_mAP_epoch_1.pth', 'best_mAP_epoch_2.pth', 'epoch_2.pth']),
    ]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {'epoch_2.pth', 'best_mAP_epoch_2.pth', 'last_checkpoint'}
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_2.pth')


def test_user_given_file_backends_stay(tmp_path):
    assert AtomicCheckpointHook(backend_args=dict(backend='petrel')).backend_args == dict(
        backend='petrel'
    )
    assert AtomicCheckpointHook(out_dir='s3://bucket').backend_args is None
