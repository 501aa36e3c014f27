import random

import numpy as np
import pytest
import torch
from mmdet.registry import LOOPS
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmdet_hadaptive.engine import ResumableTrainLoop

BATCHES, EPOCHS, SAVED = 5, 2, 7


class Noise(torch.utils.data.Dataset):
    """What transforms do: each image is another one each time."""

    def __len__(self):
        return 2 * BATCHES

    def __getitem__(self, index):
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(()).item()])


class Noisy(BaseModel):
    """Draws, as the selection of channels does."""

    def __init__(self, seen):
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.seen = seen

    def forward(self, inputs, mode):
        self.seen.append(inputs)
        return dict(loss=(self.layer(inputs) * torch.rand(2, 1)).square().mean())


def collate(samples):
    return dict(inputs=torch.stack(samples))


def train(
    folder,
    resume=None,
    loop='ResumableTrainLoop',
    hooks=('EpochSeedHook',),
    workers=2,
    batch_size=2,
):
    seen = []
    torch.manual_seed(1)
    runner = Runner(
        model=Noisy(seen),
        work_dir=str(folder),
        train_dataloader=dict(
            dataset=Noise(),
            batch_size=batch_size,
            num_workers=workers,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=collate,
        ),
        train_cfg=dict(type=loop, max_epochs=EPOCHS),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        default_hooks=dict(
            checkpoint=dict(type='AtomicCheckpointHook', by_epoch=False, interval=1)
        ),
        custom_hooks=[dict(type=hook) for hook in hooks],
        randomness=dict(seed=3),
        load_from=resume and str(resume),
        resume=resume is not None,
        default_scope='mmdet',
        experiment_name=f'{folder.name}-{len(list(folder.parent.iterdir()))}',
    )
    runner.train()
    return runner, seen


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('saved', [3, BATCHES, SAVED])
def test_a_run_resumed_within_an_epoch_is_the_run_that_was_not_stopped(tmp_path, workers, saved):
    whole, seen = train(tmp_path / 'whole', workers=workers)
    checkpoint = tmp_path / f'whole/iter_{saved}.pth'
    resumed, rest = train(tmp_path / 'resumed', checkpoint, workers=workers)
    assert len(rest) == BATCHES * EPOCHS - saved
    assert all(torch.equal(one, other) for one, other in zip(seen[saved:], rest, strict=True))
    assert resumed.iter == whole.iter == BATCHES * EPOCHS
    assert torch.equal(resumed.model.layer.weight, whole.model.layer.weight)
    losses = [runner.message_hub.get_scalar('train/loss').data[0] for runner in (whole, resumed)]
    assert np.array_equal(*losses)


def test_iterations_have_their_own_numbers(tmp_path):
    _, seen = train(tmp_path / 'whole', workers=0)
    noise = torch.cat(seen)[:, 1:]
    assert len(noise.unique()) == noise.numel()


def test_the_loop_of_mmengine_begins_the_epoch_again(tmp_path):
    train(tmp_path / 'whole')
    _, rest = train(tmp_path / 'resumed', tmp_path / 'whole/iter_3.pth', loop='EpochBasedTrainLoop')
    assert len(rest) == BATCHES * EPOCHS


def test_what_cannot_be_resumed_is_refused(tmp_path):
    assert LOOPS.get('ResumableTrainLoop') is ResumableTrainLoop
    with pytest.raises(ValueError, match=r"needs dict\(type='EpochSeedHook'\) in custom_hooks"):
        train(tmp_path / 'unseeded', hooks=())
    train(tmp_path / 'whole')
    with pytest.raises(ValueError, match='of 5 batches an epoch, and now there are 10: resume'):
        train(tmp_path / 'resumed', tmp_path / 'whole/iter_3.pth', batch_size=1)
    # Written before lengths were noted.
    checkpoint = torch.load(tmp_path / f'whole/iter_{SAVED}.pth', weights_only=False)
    checkpoint['meta']['iter'] = 3
    del checkpoint['message_hub']['runtime_info']['epoch_length']
    torch.save(checkpoint, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='iteration 3 in epoch 2 was written in a training of 5'):
        train(tmp_path / 'resumed', tmp_path / 'other.pth')
