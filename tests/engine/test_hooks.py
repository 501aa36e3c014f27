import math
import os
import random
import uuid
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmcv.ops import RoIAlign
from mmdet.models import BatchSyncRandomResize
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub
from mmengine.optim import CosineAnnealingLR, LinearLR, MultiStepLR
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import BatchSampler, DataLoader

from mmdet_hadaptive.engine import (
    AtomicCheckpointHook,
    AtomicLocalBackend,
    ChannelsLastHook,
    EpochSeedHook,
    StopOnInvalidLossHook,
)
from mmdet_hadaptive.engine.invalid_loss import find_last_finite_checkpoint


class RandomNumbers(torch.utils.data.Dataset):
    """Numbers from all generators that transforms use."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])


def runner_with(loader, epoch=0, seed=5, model=None):
    return SimpleNamespace(
        train_dataloader=loader, train_loop=None, seed=seed, epoch=epoch, model=model
    )


def started(runner):
    hook = EpochSeedHook()
    hook.before_run(runner)
    hook.before_train(runner)
    return hook


def numbers(epoch, seed=5, workers=2):
    """Rows of the loader, made as MMEngine's runner makes it, and one of this process."""
    config = dict(
        dataset=RandomNumbers(),
        batch_size=1,
        num_workers=workers,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    loader = Runner.build_dataloader(config, seed=seed)
    runner = runner_with(loader, epoch, seed)
    started(runner).before_train_epoch(runner)
    return torch.cat([*loader, torch.rand(1, 3)])


@pytest.mark.parametrize('workers', [0, 2])
def test_epochs_have_their_own_numbers_whenever_they_are_run(workers):
    first = numbers(3, workers=workers)
    assert torch.equal(first, numbers(3, workers=workers))
    # Of all images, generators, workers and of this process.
    assert len(first.unique()) == first.numel()
    assert not torch.isin(first, numbers(4, workers=workers)).any()
    assert not torch.isin(first, numbers(3, seed=6, workers=workers)).any()


@pytest.mark.parametrize('workers', [0, 2])
def test_processes_have_their_own_numbers(monkeypatch, workers):
    first = numbers(3, workers=workers)
    # set_random_seed and the runner ask for the rank here.
    monkeypatch.setattr('mmengine.runner.utils.get_rank', lambda: 1)
    monkeypatch.setattr('mmengine.runner.runner.get_rank', lambda: 1)
    assert not torch.isin(first, numbers(3, workers=workers)).any()


def test_trainings_that_count_iterations_are_refused():
    loader = DataLoader(RandomNumbers())
    runner = runner_with(loader)
    runner.train_loop = IterBasedTrainLoop(runner, loader, max_iters=2)
    with pytest.raises(ValueError, match='EpochBasedTrainLoop'):
        started(runner)


def build_loader(run_seed, batch_sampler=None, **sampler):
    config = dict(
        dataset=RandomNumbers(),
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=True, **sampler),
        collate_fn=dict(type='default_collate'),
        batch_sampler=batch_sampler,
    )
    return Runner.build_dataloader(config, seed=run_seed)


@pytest.mark.parametrize(('own', 'expected'), [({}, 7), (dict(seed=3), 3)])
def test_the_order_of_the_images_follows_the_seed_of_the_checkpoint(own, expected):
    runner = runner_with(build_loader(5, **own), seed=5)
    hook = EpochSeedHook()
    hook.before_run(runner)
    # As MMEngine does between the two, if the config names no seed.
    runner.seed = 7
    hook.before_train(runner)
    orders = [list(loader.sampler) for loader in (runner.train_dataloader, build_loader(expected))]
    assert runner.train_dataloader.sampler.seed == expected
    assert orders[0] == orders[1]


def test_a_batch_sampler_follows_the_seed_of_the_checkpoint():
    batches = dict(type=BatchSampler, drop_last=True)
    runner = runner_with(build_loader(5, batches), seed=5)
    hook = EpochSeedHook()
    hook.before_run(runner)
    runner.seed = 7
    hook.before_train(runner)
    loaders = (runner.train_dataloader, build_loader(7, batches), build_loader(5, batches))
    resumed, expected, other = (list(loader.batch_sampler) for loader in loaders)
    assert resumed == expected != other


@pytest.mark.parametrize('named', [False, True])
def test_a_resumed_run_keeps_the_length_of_its_schedule(named):
    def schedule(epochs, warmup=5):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        schedulers = [
            LinearLR(optimizer, 0.1, by_epoch=False, end=warmup),
            CosineAnnealingLR(optimizer, T_max=epochs, begin=1, end=epochs),
            MultiStepLR(optimizer, [epochs - 1]),
        ]
        return dict(optimizer=schedulers) if named else schedulers

    def resume(old, new, resumes=True):
        states = [scheduler.state_dict() for scheduler in (old['optimizer'] if named else old)]
        checkpoint = dict(param_schedulers=dict(optimizer=states) if named else states)
        runner = SimpleNamespace(_resume=resumes, param_schedulers=new)
        EpochSeedHook().after_load_checkpoint(runner, checkpoint)

    resume(schedule(14), schedule(14))
    # The weights alone are loaded.
    resume(schedule(14), schedule(28), resumes=False)
    for other in (schedule(28), schedule(14, 6)):
        with pytest.raises(ValueError, match=r"'T_max': (28|14).*of the checkpoint is .*load_from"):
            resume(schedule(14), other)


def test_the_size_of_a_batch_begins_anew_with_each_epoch():
    augment = BatchSyncRandomResize((64, 128), interval=1)
    MessageHub.get_current_instance().update_info('iter', 0)
    augment(torch.zeros(1, 3, 64, 64), [])
    assert augment._input_size is not None
    preprocessor = SimpleNamespace(batch_augments=[augment])
    model = SimpleNamespace(data_preprocessor=preprocessor)
    EpochSeedHook().before_train_epoch(runner_with(None, model=model))
    assert augment(torch.zeros(1, 3, 96, 96), [])[0].shape == (1, 3, 96, 96)


@pytest.mark.parametrize('save_best', [None, 'auto'])
def test_a_validation_without_a_training_keeps_no_checkpoint(save_best):
    hook = AtomicCheckpointHook(interval=1, save_best=save_best)
    hook.after_val_epoch(SimpleNamespace(), metrics={'coco/bbox_mAP': 0.5})


def test_a_set_smaller_than_a_batch_is_refused():
    loader = DataLoader(RandomNumbers(), batch_size=5, drop_last=True)
    with pytest.raises(ValueError, match=r'has 4 images.*smaller train_dataloader\.batch_size'):
        started(runner_with(loader))


def test_workers_that_live_on_are_refused():
    loader = DataLoader(RandomNumbers(), num_workers=1, persistent_workers=True)
    with pytest.raises(ValueError, match='persistent_workers=False'):
        started(runner_with(loader))


class Saver:
    """As much of a runner as the checkpoint hook needs."""

    def __init__(self, work_dir):
        self.work_dir = str(work_dir)
        self.epoch = self.iter = 0
        self.max_epochs = 99
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
        if filename.startswith('epoch'):
            # Without them a resumed run is another one.
            assert kwargs['save_optimizer']
            assert kwargs['save_param_scheduler']
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


def test_as_many_are_kept_as_wanted_also_by_a_resumed_run(tmp_path):
    runner = Saver(tmp_path)
    for epochs in ((1, 2, 3), (4, 5)):
        # The second one begins with what the first has noted.
        hook = AtomicCheckpointHook(max_keep_ckpts=2, save_best='mAP', rule='greater')
        hook.before_train(runner)
        for epoch in epochs:
            runner.epoch = epoch - 1
            hook._save_checkpoint(runner)
            runner.epoch = epoch
            # Saves the newest again.
            hook._save_best_checkpoint(runner, dict(mAP=0.1 * epoch))
            kept = {f'epoch_{n}.pth' for n in (epoch - 1, epoch) if n}
            left = {path.name for path in tmp_path.glob('*.pth')}
            assert left == {*kept, f'best_mAP_epoch_{epoch}.pth'}


def test_the_best_checkpoint_stays_when_it_is_written_again_under_its_name(tmp_path):
    runner = Saver(tmp_path)
    # A run that was killed after the epoch's validation, and resumed from the epoch before.
    (tmp_path / 'best_mAP_epoch_1.pth').write_bytes(b'old')
    runner.info['best_ckpt'] = str(tmp_path / 'best_mAP_epoch_1.pth')
    hook = AtomicCheckpointHook(save_best='mAP', rule='greater')
    hook.before_train(runner)
    runner.epoch = 1
    hook._save_best_checkpoint(runner, dict(mAP=0.1))
    assert (tmp_path / 'best_mAP_epoch_1.pth').read_bytes() == b'whole'


@pytest.mark.parametrize('keys', [('mAP',), ('mAP', 'AR')])
def test_the_best_checkpoint_is_found_in_a_folder_that_was_moved(tmp_path, keys):
    runner = Saver(tmp_path)
    for key in keys:
        (tmp_path / f'best_{key}_epoch_1.pth').write_bytes(b'old')
        name = 'best_ckpt' if len(keys) == 1 else f'best_ckpt_{key}'
        runner.info[name] = f'/old/machine/best_{key}_epoch_1.pth'
    hook = AtomicCheckpointHook(save_best=list(keys), rule='greater')
    hook.before_train(runner)
    runner.epoch = 2
    hook._save_best_checkpoint(runner, dict(mAP=0.1, AR=0.2))
    left = {path.name for path in tmp_path.glob('best*.pth')}
    assert left == {f'best_{key}_epoch_2.pth' for key in keys}


def test_user_given_file_backends_stay(tmp_path):
    assert AtomicCheckpointHook(backend_args=dict(backend='petrel')).backend_args == dict(
        backend='petrel'
    )
    assert AtomicCheckpointHook(out_dir='s3://bucket').backend_args is None


def test_the_pointer_never_names_a_missing_checkpoint(tmp_path, monkeypatch):
    pointer = tmp_path / 'last_checkpoint'
    changes = []

    def looking(name):
        change = getattr(AtomicLocalBackend, name)

        def look_and_change(backend, *arguments):
            for step in ('before', 'after'):
                changes.append((step, name))
                assert not pointer.exists() or Path(pointer.read_text()).is_file(), changes[-1]
                if step == 'before':
                    change(backend, *arguments)

        monkeypatch.setattr(AtomicLocalBackend, name, look_and_change)

    for name in ('put', 'remove'):
        looking(name)
    runner = Saver(tmp_path)
    hook = AtomicCheckpointHook(interval=1, max_keep_ckpts=1)
    hook.before_train(runner)
    for runner.epoch in range(3):
        hook.after_train_epoch(runner)
    # The pointer three times, and the two outdated checkpoints.
    assert changes.count(('after', 'put')) == 3
    assert changes.count(('after', 'remove')) == 2
    assert pointer.read_text() == str(tmp_path / 'epoch_3.pth')


def test_channels_last():
    model = torch.nn.Conv2d(4, 4, 3)
    ChannelsLastHook().before_run(SimpleNamespace(model=model))
    assert model.weight.is_contiguous(memory_format=torch.channels_last)
    assert not model.weight.is_contiguous()


def test_channels_last_refuses_operations_that_would_compute_other_values():
    model = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3), RoIAlign(2))
    with pytest.raises(TypeError, match=r'1 \(RoIAlign\).*remove the hook'):
        ChannelsLastHook().before_run(SimpleNamespace(model=model))
    assert model[0].weight.is_contiguous()


def sample(name):
    return SimpleNamespace(metainfo=dict(img_path=name))


@pytest.fixture
def losses(tmp_path):
    """A runner that has logged a loss, as MMEngine's own hook does, and what it hands to others."""
    hub = MessageHub.get_instance(uuid.uuid4().hex)
    runner = SimpleNamespace(message_hub=hub, work_dir=str(tmp_path), hooks=[], iter=0, epoch=2)

    def step(loss, other=1.0):
        outputs = dict(loss=torch.tensor(loss), loss_cls=torch.tensor(other))
        for key, value in outputs.items():
            hub.update_scalar(f'train/{key}', value)
        return dict(data_batch=dict(data_samples=[sample('a.jpg'), sample('b.jpg')])), outputs

    return runner, step


@pytest.mark.parametrize('loss', [math.nan, math.inf, -math.inf])
def test_invalid_losses_stop_the_run(losses, loss):
    runner, step = losses
    runner.iter = 10
    batch, outputs = step(loss, other=3.5)
    with pytest.raises(FloatingPointError) as error:
        StopOnInvalidLossHook().after_train_iter(runner, 4, **batch, outputs=outputs)
    message = str(error.value)
    assert f'iteration 11 (epoch 3, batch 5): loss {loss:g}, loss_cls 3.5' in message
    assert 'images: a.jpg, b.jpg' in message
    assert f'none in {runner.work_dir}' in message


def test_valid_losses_are_not_waited_for(losses, monkeypatch):
    """Whatever brings a value from the device to Python waits for the device."""
    runner, step = losses
    hook = StopOnInvalidLossHook()
    batches = [step(float(value)) for value in range(20)]

    def wait(*arguments, **options):
        raise AssertionError('waits for the device')

    for name in ('item', '__bool__', '__float__', '__int__', 'tolist', 'cpu', 'numpy', 'to'):
        monkeypatch.setattr(torch.Tensor, name, wait)
    for index, (batch, outputs) in enumerate(batches):
        hook.after_train_iter(runner, index, **batch, outputs=outputs)


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_invalid_weights_are_not_saved(tmp_path, value):
    # Where the checkpoint hook writes, which need not be the work directory.
    folder = tmp_path / 'checkpoints'
    folder.mkdir()
    torch.save(dict(state_dict=dict(a=torch.zeros(2))), folder / 'epoch_1.pth')
    written = CheckpointHook(out_dir=str(folder))
    runner = SimpleNamespace(work_dir=str(tmp_path), hooks=[written])
    state = dict(a=torch.zeros(2), b=torch.tensor([0.0, value]), count=torch.tensor(3))
    checkpoint = dict(meta=dict(iter=8), state_dict=state)
    hook = StopOnInvalidLossHook()
    with pytest.raises(FloatingPointError) as error:
        hook.before_save_checkpoint(runner, checkpoint)
    assert '1 weights are not finite after iteration 8, and are not saved: b' in str(error.value)
    assert f'--resume {folder / "epoch_1.pth"}' in str(error.value)
    state['b'].zero_()
    hook.before_save_checkpoint(runner, checkpoint)


def test_extra_states_are_no_weights(tmp_path):
    runner = SimpleNamespace(work_dir=str(tmp_path), hooks=[])
    state = dict(a=torch.zeros(2), module_extra_state=dict(note='text'))
    checkpoint = dict(meta=dict(iter=8), state_dict=state)
    StopOnInvalidLossHook().before_save_checkpoint(runner, checkpoint)
    torch.save(checkpoint, tmp_path / 'epoch_1.pth')
    assert find_last_finite_checkpoint(tmp_path) == tmp_path / 'epoch_1.pth'
    state['a'][0] = math.nan
    with pytest.raises(FloatingPointError, match=r'1 weights are not finite .* saved: a\n'):
        StopOnInvalidLossHook().before_save_checkpoint(runner, checkpoint)


def test_the_last_finite_checkpoint(tmp_path):
    for epoch, value in enumerate((0.0, 1.0, math.nan)):
        path = tmp_path / f'epoch_{epoch}.pth'
        torch.save(dict(state_dict=dict(weight=torch.full((2,), value))), path)
        os.utime(path, (epoch, epoch))
    (tmp_path / 'epoch_3.pth').write_bytes((tmp_path / 'epoch_0.pth').read_bytes()[:100])
    torch.save(dict(weights={}), tmp_path / 'epoch_4.pth')
    assert find_last_finite_checkpoint(tmp_path) == tmp_path / 'epoch_1.pth'


def test_channels_last_refuses_other_wrappers():
    runner = SimpleNamespace(model=torch.nn.DataParallel(torch.nn.Conv2d(3, 4, 3)))
    with pytest.raises(TypeError, match=r'in DataParallel.*remove the hook'):
        ChannelsLastHook().before_run(runner)
