"""Precision and memory options against plain float32 training, on the embedded data."""

from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_hadaptive.layers import AdaptiveCrossHadamard
from mmdet_hadaptive.models import ARCHITECTURES

SHAPES = Path(__file__).parents[1] / 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'
# The small network with three layers that select: one after another, and in another stage. Of what
# is the same in all of them there is one: compiling takes its time.
ARCH = deepcopy(ARCHITECTURES['small'])
for stage, blocks in enumerate((1, 2, 1, 3, 2)):
    ARCH['stages'][stage] = ARCH['stages'][stage][:blocks]
LAYERS = 3
EPOCHS, BATCHES = 3, 4


class Record:
    """What a training went through: losses, and gradient norms and temperatures of each layer."""

    def __init__(self):
        self.losses, self.norms, self.temperatures = [], {}, {}

    def check_rule(self, passes):
        """Every layer followed the temperature rule, once in each backward pass."""
        assert len(self.norms) == LAYERS
        for layer, norms in self.norms.items():
            assert len(norms) == passes
            expected, last = 4.0, None
            for norm, temperature in zip(norms, self.temperatures[layer], strict=True):
                if last is not None:
                    expected = min(expected * (1.005 if norm >= last else 0.995), 4.0)
                last = norm
                assert temperature == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope='module')
def train(shapes, tmp_path_factory):
    """Trains the shapes config for some steps and records it."""

    def run(options=None, context=None, prepare=None):
        config = Config.fromfile(SHAPES)
        config.merge_from_dict(
            dict(
                work_dir=str(tmp_path_factory.mktemp('run')),
                train_cfg=dict(max_epochs=EPOCHS, val_interval=99),
                train_dataloader=dict(batch_size=4, num_workers=0),
                val_dataloader=dict(num_workers=0, persistent_workers=False),
                optim_wrapper=dict(optimizer=dict(lr=1e-3)),
                default_hooks=dict(logger=dict(interval=1), checkpoint=dict(interval=99)),
            )
        )
        config.model.backbone.arch = ARCH
        config.param_scheduler = []
        config.custom_hooks = [dict(type='EpochSeedHook')]
        config.merge_from_dict(options or {})
        record = Record()
        rule = AdaptiveCrossHadamard.update_temperature

        def recorded_rule(layer, grad):
            rule(layer, grad)
            record.norms.setdefault(id(layer), []).append(layer.last_grad_norm.item())
            record.temperatures.setdefault(id(layer), []).append(layer.temperature.item())

        with pytest.MonkeyPatch.context() as patch, context or nullcontext():
            patch.chdir(shapes.parents[1])
            patch.setattr(AdaptiveCrossHadamard, 'update_temperature', recorded_rule)
            runner = Runner.from_cfg(config)
            if prepare:
                prepare(runner)
            runner.train()
        record.losses = runner.message_hub.get_scalar('train/loss').data[0]
        record.dtypes = {parameter.dtype for parameter in runner.model.parameters()}
        record.check_rule(EPOCHS * BATCHES)
        return record

    return run


@pytest.fixture(scope='module')
def plain(train):
    record = train()
    assert len(record.losses) == EPOCHS * BATCHES
    assert record.losses[-1] < 0.95 * record.losses[0]
    return record


def differences(record, plain):
    """The losses relative to the plain ones: the largest difference, and that of their means."""
    ratios = np.divide(record.losses, plain.losses)
    return np.abs(ratios - 1).max(), abs(np.mean(record.losses) / np.mean(plain.losses) - 1)


def test_the_same_seed_gives_the_same_losses(train, plain):
    assert np.array_equal(train().losses, plain.losses)
    assert differences(train(dict(randomness=dict(seed=1))), plain)[0] > 0.01


def test_activation_checkpointing(train, plain):
    record = train(dict(model=dict(backbone=dict(with_cp=True))))
    assert np.array_equal(record.losses, plain.losses)


def test_ema(train, plain):
    hook = dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.1, update_buffers=True)
    record = train(dict(custom_hooks=[dict(type='EpochSeedHook'), hook]))
    assert np.array_equal(record.losses, plain.losses)


# Another order of sums makes a rounding difference, which may let another channel win; the
# following losses then differ as with other noise.
def test_channels_last(train, plain):
    hooks = [dict(type='EpochSeedHook'), dict(type='ChannelsLastHook')]
    largest, mean_difference = differences(train(dict(custom_hooks=hooks)), plain)
    assert largest < 0.03
    assert mean_difference < 0.01


def test_compiled_backbone(train, plain):
    record = train(prepare=lambda runner: runner.model.backbone.compile(backend='aot_eager'))
    largest, mean_difference = differences(record, plain)
    assert largest < 0.03
    assert mean_difference < 0.01


def check_first_norms(record, plain, factor):
    """The scores' gradients agree in each layer; in half precision they are sums that cancel."""
    for layer, norms in zip(record.norms.values(), plain.norms.values(), strict=True):
        assert 1 / factor < layer[0] / norms[0] < factor


def test_bfloat16_autocast(train, plain):
    # A cast that is kept for the whole training would be that of the first weights.
    record = train(context=torch.autocast('cpu', torch.bfloat16, cache_enabled=False))
    largest, mean_difference = differences(record, plain)
    assert 1e-4 < largest < 0.03
    assert mean_difference < 0.01
    assert record.dtypes == {torch.float32}
    check_first_norms(record, plain, 2)
    # They grow as the products learn.
    assert all(norms[-1] > 10 * norms[0] for norms in record.norms.values())


def test_gradient_accumulation(train, plain):
    record = train(dict(optim_wrapper=dict(accumulative_counts=2)))
    # Half as many steps of the optimizer, the first of them after two passes.
    assert record.losses[0] == plain.losses[0]
    assert record.losses[1] != plain.losses[1]
    assert differences(record, plain)[1] < 0.1


def test_gradient_clipping(train, plain):
    record = train(dict(optim_wrapper=dict(clip_grad=dict(max_norm=1e9))))
    assert np.array_equal(record.losses, plain.losses)
    record = train(dict(optim_wrapper=dict(clip_grad=dict(max_norm=1.0))))
    assert differences(record, plain)[1] < 0.05


# Rounding adds to a norm as the root of squares, and bfloat16 rounds eight times as coarsely:
# (1 + 64 (1.2^2 - 1))^0.5.
@pytest.mark.gpu
@pytest.mark.parametrize(('dtype', 'factor'), [('float16', 1.2), ('bfloat16', 5.4)])
def test_amp_on_a_gpu(train, plain, dtype, factor):
    scale = 512.0
    record = train(dict(optim_wrapper=dict(type='AmpOptimWrapper', dtype=dtype, loss_scale=scale)))
    largest, mean_difference = differences(record, plain)
    assert 1e-5 < largest < 0.2
    assert mean_difference < 0.05
    record.norms = {layer: [n / scale for n in norms] for layer, norms in record.norms.items()}
    check_first_norms(record, plain, factor)
