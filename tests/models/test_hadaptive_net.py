import copy
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.model import revert_sync_batchnorm
from mmengine.runner.checkpoint import load_state_dict
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_hadaptive.layers import AdaptiveCrossHadamard, DySoft
from mmdet_hadaptive.models import ARCHITECTURES, HadaptiveNet
from mmdet_hadaptive.models import PUBLISHED_ARCHITECTURES as PUBLISHED
from mmdet_hadaptive.utils.costs import count_costs

# A small table, so that tests of the mechanism are quick.
TINY = dict(
    stages=[
        [dict(type='conv', channels=8, kernel=2, stride=2, act=False)],
        [dict(type='conv', channels=8, kernel=2, stride=2, act=True)],
        [
            dict(type='ghost', channels=12, expand=2, kernel=2, stride=2),
            dict(type='ach', channels=12, num_selected=4, kernel=3, product_norm='DySoft'),
            dict(type='ach', channels=12, num_selected=5, kernel=3, product_norm='BN'),
        ],
    ],
    final_channels=16,
)


def tiny(**kwargs):
    return HadaptiveNet(TINY, **{'out_indices': (1, 2, 3), **kwargs})


# parameters, without final convolution; MACs at 224, without it; MACs at 320.
SIZES = {
    'small': (744452, 619652, 129637600, 123616480, 264563200),
    'medium': (1738048, 1551808, 337345868, 328314188, 688454960),
    'large': (4752458, 4504778, 667558392, 665346552, 1370200700),
}


@pytest.mark.parametrize('arch', PUBLISHED)
def test_published_sizes(arch):
    last = len(ARCHITECTURES[arch]['stages'])
    whole = HadaptiveNet(arch, out_indices=(last,))
    without = HadaptiveNet(arch, out_indices=(last - 1,))
    costs, costs_without = count_costs(whole, 224, 224), count_costs(without, 224, 224)
    assert SIZES[arch] == (
        costs.parameters,
        costs_without.parameters,
        costs.macs,
        costs_without.macs,
        count_costs(whole, 320, 320).macs,
    )


@pytest.mark.parametrize('arch', PUBLISHED)
def test_without_products_the_costs_are_the_same(arch):
    published = HadaptiveNet(arch)
    net = HadaptiveNet(f'{arch}-ir')
    costs, expected = count_costs(net, 320, 320), count_costs(published, 320, 320)
    assert costs.macs == pytest.approx(expected.macs, rel=5e-3)
    assert costs.parameters == pytest.approx(expected.parameters, rel=1e-2)
    assert net.out_channels == published.out_channels
    assert not any(isinstance(m, AdaptiveCrossHadamard) for m in net.modules())
    # Every other block is the same.
    tables = [ARCHITECTURES[a]['stages'] for a in (arch, f'{arch}-ir')]
    for ours, theirs in zip(*tables, strict=True):
        for block, other in zip(ours, theirs, strict=True):
            assert block == other or (block['type'], other['type']) == ('ach', 'inverted_residual')
            if block != other:
                c, k, s = (block[key] for key in ('channels', 'kernel', 'num_selected'))
                assert (other['channels'], other['kernel']) == (c, k)
                # Of all multiples of 8, the width whose cost for a pixel is the nearest.
                macs = c * c + (c + s * (s - 1) // 2) * (k * k + c)
                assert abs(other['width'] - macs / (2 * c + k * k)) <= 4
                assert other['width'] % 8 == 0


def test_a_pointwise_block_is_an_inverted_bottleneck():
    table = dict(
        stages=[[dict(type='inverted_residual', channels=3, width=8, kernel=5)]], final_channels=4
    )
    net = HadaptiveNet(table, out_indices=(0,)).eval()
    (block,) = net.stem
    x = torch.randn(2, 3, 6, 6)
    h = F.hardswish(block.expansion.norm(F.conv2d(x, block.expansion.conv.weight)))
    h = F.conv2d(h, block.depthwise.conv.weight, padding=2, groups=8)
    h = F.hardswish(block.depthwise.norm(h))
    expected = x + block.projection.norm(F.conv2d(h, block.projection.conv.weight))
    assert torch.allclose(net(x)[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ('arch', 'channels', 'strides'),
    [
        ('small', (32, 32, 64, 96, 128, 960), (2, 4, 8, 16, 32, 32)),
        ('medium', (32, 48, 80, 128, 192, 960), (2, 4, 8, 16, 32, 32)),
        ('large', (24, 48, 96, 192, 256, 256, 960), (2, 4, 8, 16, 32, 64, 64)),
    ],
)
def test_out_channels_and_strides_say_what_comes_out(arch, channels, strides):
    net = HadaptiveNet(arch, out_indices=range(len(channels))).eval()
    assert net.out_channels == channels
    assert net.out_strides == strides
    with torch.no_grad():
        outputs = net(torch.randn(1, 3, 128, 192))
    assert [tuple(y.shape) for y in outputs] == [
        (1, c, 128 // s, 192 // s) for c, s in zip(channels, strides, strict=True)
    ]


@settings(deadline=None, max_examples=25)
@given(
    height=st.integers(8, 40),
    width=st.integers(8, 40),
    batch=st.integers(1, 3),
    training=st.booleans(),
)
def test_any_input_size_down_to_the_total_stride(height, width, batch, training):
    # A batch normalisation cannot train on one value a channel.
    training = training and batch * (height // 8) * (width // 8) > 1
    outputs = tiny(out_indices=(1, 2)).train(training)(torch.randn(batch, 3, height, width))
    assert [y.shape[-2:] for y in outputs] == [(height // 4, width // 4), (height // 8, width // 8)]
    assert all(y.isfinite().all() for y in outputs)


@pytest.mark.parametrize('arch', ARCHITECTURES)
def test_smallest_input_and_batch_of_one(arch):
    net = HadaptiveNet(arch).eval()
    side = net.out_strides[-1]
    assert net(torch.randn(1, 3, side, side))[-1].shape[-2:] == (1, 1)
    with pytest.raises(ValueError, match=rf'{side - 1} x {side} pixels.*total stride of {side}'):
        net(torch.randn(1, 3, side - 1, side))


def test_nothing_is_built_behind_the_last_index():
    net = HadaptiveNet('small', out_indices=(2, 3))
    assert [name for name, _ in net.named_children()] == ['stem', 'stage1', 'stage2', 'stage3']
    sum(y.sum() for y in net(torch.randn(2, 3, 64, 64))).backward()
    assert all(p.grad is not None for p in net.parameters())


def test_gradients_reach_every_parameter():
    net = HadaptiveNet('medium', out_indices=(1, 2, 3, 4, 5))
    sum(y.square().sum() for y in net(torch.randn(2, 3, 64, 64))).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 2, 3])
def test_frozen_stages(frozen_stages):
    net = tiny(frozen_stages=frozen_stages).train()
    for index, stage in enumerate(net.children()):
        frozen = index <= frozen_stages
        assert all(p.requires_grad != frozen for p in stage.parameters())
        assert all(m.training != frozen for m in stage.modules())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    if frozen_stages < 3:
        for _ in range(2):
            sum(y.sum() for y in net(torch.randn(2, 3, 32, 32))).backward()
    else:
        net(torch.randn(2, 3, 32, 32))
    frozen_names = [name for name, _ in net.named_children()][: frozen_stages + 1]
    for name, value in net.state_dict().items():
        if name.split('.')[0] in frozen_names:
            assert torch.equal(value, before[name]), name


def test_norm_eval():
    net = tiny(norm_eval=True).train()
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm)]
    assert norms
    assert not any(m.training for m in norms)
    assert all(m.training for m in net.modules() if isinstance(m, AdaptiveCrossHadamard))
    assert not tiny().eval().training


def test_norm_eval_of_synchronised_normalisations():
    net = tiny(norm_eval=True, norm_cfg=dict(type='SyncBN')).train()
    norms = [m for m in net.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert norms
    assert not any(m.training for m in norms)


def test_products_of_the_medium_network_are_normalised_by_turns():
    net = HadaptiveNet('medium', out_indices=(4,))
    layers = [m for m in net.modules() if isinstance(m, AdaptiveCrossHadamard)]
    kinds = [type(m.product_norm) for m in layers]
    assert kinds == [DySoft, nn.BatchNorm2d] * 4


@pytest.mark.parametrize('backend', [None, 'aot_eager'])
def test_checkpointing_changes_nothing(backend):
    plain, checkpointed = tiny(), tiny(with_cp=True)
    checkpointed.load_state_dict(plain.state_dict())
    if backend:
        checkpointed.compile(backend=backend)
    image = torch.randn(2, 3, 32, 32)
    for _ in range(3):
        results = []
        for net in (plain, checkpointed):
            torch.manual_seed(5)
            net.zero_grad()
            outputs = net(image)
            sum(y.square().mean() for y in outputs).backward()
            results.append((outputs, [p.grad for p in net.parameters()], net.state_dict()))
        for a, b in zip(results[0][0], results[1][0], strict=True):
            assert torch.equal(a, b)
        for a, b in zip(results[0][1], results[1][1], strict=True):
            assert torch.equal(a, b)
        # Running statistics and temperatures too.
        for name, value in results[0][2].items():
            assert torch.equal(value, results[1][2][name]), name


def test_stages_are_modules_with_hooks():
    net, seen = tiny().eval(), []
    for name in net._names:
        net.get_submodule(name).register_forward_hook(lambda *args: seen.append(args[2]))
    outputs = net(torch.randn(2, 3, 32, 32))
    assert len(seen) == len(net._names)
    assert all(any(y is x for x in seen) for y in outputs)


def test_checkpointing_recomputes(monkeypatch):
    calls = []
    forward = AdaptiveCrossHadamard.forward

    def counted(self, x, noise=None):
        calls.append(1)
        return forward(self, x, noise)

    monkeypatch.setattr(AdaptiveCrossHadamard, 'forward', counted)
    sum(y.sum() for y in tiny(with_cp=True)(torch.randn(2, 3, 32, 32))).backward()
    assert len(calls) == 4


@pytest.mark.parametrize('norm_cfg', [dict(type='GN', num_groups=2), dict(type='SyncBN')])
def test_norm_cfg_reaches_every_normalisation(norm_cfg):
    table = dict(TINY, stages=[*TINY['stages'][:2], TINY['stages'][2][:2]])
    net = HadaptiveNet(table, out_indices=(2,), norm_cfg=norm_cfg)
    kinds = {type(m).__name__ for m in net.modules() if 'Norm' in type(m).__name__}
    assert kinds == {'GroupNorm' if norm_cfg['type'] == 'GN' else 'SyncBatchNorm', 'ConvNormAct'}


def test_synchronised_normalisation_is_reverted_where_there_is_one_process():
    # As MMEngine does it; torch's own needs a GPU.
    net = revert_sync_batchnorm(tiny(norm_cfg=dict(type='SyncBN')))
    sum(y.square().mean() for y in net.train()(torch.randn(2, 3, 32, 32))).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in net.modules())


def test_batch_normalised_products_use_norm_cfg():
    net = tiny(norm_cfg=dict(type='BN', eps=0.5))
    assert {m.eps for m in net.modules() if isinstance(m, _BatchNorm)} == {0.5}


def ach_layers(net):
    layers = [m for m in net.modules() if isinstance(m, AdaptiveCrossHadamard)]
    assert len(layers) == 2
    return layers


def test_ach_cfg_reaches_every_layer():
    net = tiny(ach_cfg=dict(straight_through='reversed', adapt_temperature=False))
    assert {m.straight_through for m in ach_layers(net)} == {'reversed'}
    assert not any(m.adapt_temperature for m in ach_layers(net))
    assert all(m.scorer is None for m in ach_layers(tiny(ach_cfg=dict(selection='fixed'))))


@pytest.mark.parametrize(('name', 'kind'), [('DySoft', DySoft), ('BN', nn.BatchNorm2d)])
def test_product_norm_of_every_layer(name, kind):
    net = tiny(ach_cfg=dict(product_norm=name))
    assert {type(m.product_norm) for m in ach_layers(net)} == {kind}


def test_random_initialisation():
    net = tiny()
    net.init_weights()
    weight = net.final_conv[0].conv.weight
    # Xavier: variance 2 / (fan in + fan out).
    assert weight.std().item() == pytest.approx((2 / (12 + 16)) ** 0.5, rel=0.2)
    # A normal distribution: a uniform one ends at 1.73 standard deviations.
    assert weight.abs().max() > 2 * weight.std()
    assert net.stage2[1].expansion.pointwise.bias.abs().max() == 0
    assert net.stage2[1].expansion.temperature == 4.0


def detector_checkpoint(path, net):
    state = {f'backbone.{name}': value for name, value in net.state_dict().items()}
    torch.save(dict(state_dict={**state, 'bbox_head.weight': torch.zeros(3)}), path)
    return str(path)


def test_pretrained_with_prefix(tmp_path):
    source = tiny()
    source.stage2[1].expansion.temperature.fill_(0.7)
    file = detector_checkpoint(tmp_path / 'detector.pth', source)
    net = tiny(init_cfg=dict(type='Pretrained', checkpoint=file, prefix='backbone.'))
    net.init_weights()
    for name, value in net.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name


def test_a_detector_starts_from_a_classifier_without_a_warning():
    source = tiny()
    state = source.state_dict()
    net = tiny(out_indices=(1, 2))
    load_state_dict(net, state, strict=True)
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name]), name
    # Within a detector, and by torch.
    nn.ModuleDict(dict(backbone=net)).load_state_dict(
        {f'backbone.{name}': value for name, value in state.items()}
    )
    assert 'final_conv.0.conv.weight' in state, 'what is given stays whole'
    with pytest.raises(RuntimeError, match=r'Unexpected key.*stage7'):
        net.load_state_dict(state | {'stage7.weight': torch.zeros(1)})


@pytest.mark.parametrize('given', ['medium', 'small-ir'])
def test_checkpoint_of_another_arch_is_refused(tmp_path, given):
    file = detector_checkpoint(tmp_path / 'other.pth', HadaptiveNet(given))
    net = HadaptiveNet(
        'small', init_cfg=dict(type='Pretrained', checkpoint=file, prefix='backbone.')
    )
    with pytest.raises(ValueError, match=rf"not fit HadaptiveNet\(arch='small'\).*='{given}'"):
        net.init_weights()


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        (('backbone.stem.0.conv.weight',), r"has no weight of HadaptiveNet.*prefix='backbone\.'"),
        (
            ('conv1.weight', 'bn1.weight'),
            r"its first is 'conv1\.weight'.*checkpoint of this backbone",
        ),
    ],
)
def test_checkpoint_without_any_weight_of_ours_is_refused(tmp_path, keys, message):
    torch.save(dict(state_dict={key: torch.zeros(3) for key in keys}), tmp_path / 'other.pth')
    net = tiny(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'other.pth')))
    with pytest.raises(ValueError, match=message):
        net.init_weights()


@pytest.mark.parametrize(
    ('error', 'message', 'kwargs'),
    [
        (ValueError, r"arch must be one of .*'small'.* got 'tiny'", dict(arch='tiny')),
        (TypeError, 'arch must be one of', dict(arch=3)),
        (TypeError, 'out_indices must be a sequence of int, got 3', dict(out_indices=3)),
        (ValueError, r'out_indices must be rising and in 0\.\.5', dict(out_indices=(2, 6))),
        (ValueError, 'out_indices must be rising', dict(out_indices=(3, 2))),
        (ValueError, 'out_indices must be rising', dict(out_indices=())),
        (ValueError, 'out_indices must be rising', dict(out_indices=(-1, 2))),
        (ValueError, r'frozen_stages must be in -1\.\.4 .*got 5', dict(frozen_stages=5)),
        (ValueError, 'frozen_stages must be in', dict(frozen_stages=-2)),
        (
            ValueError,
            "straight_through must be .* got 'soft'",
            dict(ach_cfg=dict(straight_through='soft')),
        ),
        (
            ValueError,
            r"keys of ach_cfg must be among .*straight_through.* got \['sign'\]",
            dict(ach_cfg=dict(sign=-1)),
        ),
        (
            ValueError,
            "product_norm must be 'DySoft' or 'BN' in ach_cfg, got 'LN'",
            dict(ach_cfg=dict(product_norm='LN')),
        ),
    ],
)
def test_wrong_arguments(error, message, kwargs):
    with pytest.raises(error, match=message):
        HadaptiveNet(**kwargs)


@pytest.mark.parametrize(
    ('block', 'message'),
    [
        (dict(type='mlp'), "type must be one of .*'ach', 'conv', 'ghost'"),
        (dict(type='conv', channels=8), 'the keys must be type, act, channels, kernel, stride'),
        (
            dict(type='ach', channels=8, num_selected=4, kernel=3, product_norm='LN'),
            "product_norm must be 'DySoft' or 'BN'",
        ),
    ],
)
def test_wrong_tables_name_the_block(block, message):
    with pytest.raises(ValueError, match=message + r".* in arch\['stages'\]\[0\]"):
        HadaptiveNet(dict(stages=[[block]], final_channels=8), out_indices=(0,))


def test_registered_in_mmdet():
    from mmdet.registry import MODELS

    net = MODELS.build(dict(type='HadaptiveNet', arch='small'))
    assert isinstance(net, HadaptiveNet)


def test_layers_need_torch_only():
    code = (
        'import sys\n'
        "for name in ('mmdet', 'mmcv', 'mmengine'): sys.modules[name] = None\n"
        'import torch\n'
        'from mmdet_hadaptive.layers import AdaptiveCrossHadamard\n'
        'print(AdaptiveCrossHadamard(8, 4)(torch.randn(2, 8, 4, 4)).shape[1])\n'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout.strip() == '14', result.stderr


def test_compiled_with_inductor():
    from torch._inductor import config

    eager = tiny().train()
    eager.init_weights()
    compiled = copy.deepcopy(eager)
    compiled.compile()
    # The same random numbers as eager.
    with config.patch(fallback_random=True):
        for seed in range(4):
            x = torch.randn(2, 3, 64, 64)
            for net in (eager, compiled):
                torch.manual_seed(seed)
                net.zero_grad()
                sum(y.square().mean() for y in net(x)).backward()
    for expected, actual in zip(eager.parameters(), compiled.parameters(), strict=True):
        assert torch.allclose(actual.grad, expected.grad, rtol=1e-3, atol=1e-6)
    for expected, actual in zip(ach_layers(eager), ach_layers(compiled), strict=True):
        assert actual.temperature.item() == expected.temperature.item() != 4.0
        assert actual.last_grad_norm.item() == pytest.approx(expected.last_grad_norm.item(), 1e-4)
