import copy
import pickle
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hadaptive_runtime.onnx_session import create_session
from mmdet_hadaptive.export import fuse_for_inference
from mmdet_hadaptive.layers import AdaptiveBottleneck, AdaptiveCrossHadamard, DySoft
from mmdet_hadaptive.models import HadaptiveNet

CONFIGS = Path(__file__).parents[2] / 'configs'
# Channels with DySoft and BatchNorm products that are no multiple of eight.
TABLE = dict(
    stages=[
        [dict(type='conv', channels=8, kernel=2, stride=2, act=False)],
        [
            dict(type='conv', channels=12, kernel=2, stride=2, act=True),
            dict(type='conv', channels=8, kernel=1, stride=1, act=True),
        ],
        [
            dict(type='ghost', channels=12, expand=2, kernel=2, stride=2),
            dict(type='ghost', channels=12, expand=2, kernel=3, stride=1),
            dict(type='ach', channels=12, num_selected=4, kernel=3, product_norm='DySoft'),
            dict(type='ach', channels=12, num_selected=5, kernel=5, product_norm='BN'),
        ],
    ],
    final_channels=16,
)


def trained(model):
    """Gives every parameter and statistic a value of its own, as training does."""
    generator = torch.Generator().manual_seed(3)

    def uniform(value, low, high):
        value.data.copy_(torch.rand(value.shape, generator=generator) * (high - low) + low)

    for module in model.modules():
        if isinstance(module, _BatchNorm):
            uniform(module.running_mean, -0.3, 0.3)
            uniform(module.running_var, 0.5, 1.5)
        if isinstance(module, (_BatchNorm, DySoft)):
            uniform(module.weight, 0.5, 1.5)
            uniform(module.bias, -0.5, 0.5)
        if isinstance(module, DySoft):
            uniform(module.alpha, -2.0, -0.5)
    model.eval()
    return model


def tiny(**kwargs):
    net = HadaptiveNet(TABLE, **{'out_indices': (1, 2, 3), **kwargs})
    net.init_weights()
    return trained(net)


def assert_equal(actual, expected, tolerance=1e-5):
    assert len(actual) == len(expected) > 0
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        assert (a - e).abs().max() <= tolerance * e.abs().max()


@torch.no_grad()
@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize('size', [(32, 40), (37, 51)])
@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(out_indices=(0, 2)),
        dict(ach_cfg=dict(selection='fixed')),
        dict(norm_cfg=dict(type='GN', num_groups=2), ach_cfg=dict(product_norm='DySoft')),
        dict(norm_cfg=dict(type='BN', eps=0.3)),
    ],
    ids=['plain', 'stem is an output', 'fixed selection', 'group normalisation', 'large eps'],
)
def test_outputs_are_equal(options, size, batch):
    net = tiny(**options)
    image = torch.randn(batch, 3, *size)
    assert_equal(fuse_for_inference(net)(image), net(image))


def of_stride_two(kind, kernel, stem_kernel):
    extra = dict(
        conv=dict(act=True),
        ghost=dict(expand=2),
        inverted_residual=dict(width=20),
        ach=dict(num_selected=4, product_norm='BN'),
    )
    first = dict(type='conv', channels=8, kernel=stem_kernel, stride=2, act=False)
    second = dict(type=kind, channels=12, kernel=kernel, stride=2, **extra[kind])
    net = HadaptiveNet(dict(stages=[[first], [second]], final_channels=4), out_indices=(1, 2))
    net.init_weights()
    return trained(net)


@torch.no_grad()
@pytest.mark.parametrize('stem_kernel', [2, 3])
@pytest.mark.parametrize('kernel', [1, 2, 3, 5])
@pytest.mark.parametrize('kind', ['conv', 'ghost', 'inverted_residual', 'ach'])
def test_kernels_of_stride_two(kind, kernel, stem_kernel):
    net = of_stride_two(kind, kernel, stem_kernel)
    fused = fuse_for_inference(net)
    # All remainders of the total stride.
    for height, width in ((12, 13), (14, 15), (15, 12)):
        image = torch.randn(2, 3, height, width)
        assert_equal(fused(image), net(image))


@torch.no_grad()
def test_a_border_of_zeros_keeps_convolutions_apart():
    conv = dict(type='conv', channels=8, act=False, kernel=3)
    table = dict(stages=[[dict(conv, stride=1)], [dict(conv, stride=3)]], final_channels=4)
    net = HadaptiveNet(table, out_indices=(1,))
    net.init_weights()
    image = torch.randn(1, 3, 12, 14)
    assert_equal(fuse_for_inference(trained(net))(image), net(image))


@torch.no_grad()
@pytest.mark.parametrize('arch', ['small', 'medium', 'large', 'small-ir'])
def test_networks(arch):
    net = HadaptiveNet(arch)
    net.init_weights()
    trained(net)
    fused = fuse_for_inference(net)
    image = torch.randn(1, 3, 96, 70)
    assert_equal(fused(image), net(image))
    assert not any(isinstance(m, _BatchNorm) for m in fused.modules())
    assert not any(isinstance(m, AdaptiveCrossHadamard) for m in fused.modules())
    # The first convolution of stage 1 has taken the stem in.
    assert fused.stage1[0].conv.kernel_size == (4, 4)
    widths = [m.depthwise.conv.groups for m in fused.modules() if is_adaptive(m)]
    assert bool(widths) == (not arch.endswith('-ir'))
    assert all(width % 8 == 0 for width in widths)


def is_adaptive(module):
    return isinstance(module, AdaptiveBottleneck) and hasattr(module.expansion, 'shift')


@torch.no_grad()
@pytest.mark.parametrize('name', ['weight', 'alpha'])
def test_parameters_of_zero(name):
    net = tiny()
    getattr(net.stage2[2].expansion.product_norm, name).data.zero_()
    image = torch.randn(1, 3, 40, 40)
    assert_equal(fuse_for_inference(net)(image), net(image))


@torch.no_grad()
def test_a_stem_with_an_activation():
    table = copy.deepcopy(TABLE)
    table['stages'][0][0]['act'] = True
    net = HadaptiveNet(table, out_indices=(1, 2))
    net.init_weights()
    trained(net)
    image = torch.randn(1, 3, 40, 56)
    assert_equal(fuse_for_inference(net)(image), net(image))


def test_the_original_is_untouched():
    net = tiny().train()
    before = copy.deepcopy(net.state_dict())
    fused = fuse_for_inference(net)
    for parameter in fused.parameters():
        parameter.data.add_(1)
    assert net.training
    assert not fused.training
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert all(parameter.requires_grad for parameter in net.parameters())
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(v.is_contiguous() for v in after.values())


@torch.no_grad()
def test_the_copy_can_be_saved_and_compiled():
    # Other tests of the process have compiled backbones, too, and there is a limit.
    torch.compiler.reset()
    image = torch.randn(1, 3, 40, 40)
    fused = fuse_for_inference(tiny())
    expected = fused(image)
    assert_equal(pickle.loads(pickle.dumps(fused))(image), expected)
    assert_equal(torch.compile(fused, backend='eager', fullgraph=True)(image), expected)
    assert_equal(torch.jit.trace(fused, image)(image), expected)


@torch.no_grad()
@pytest.mark.parametrize('dynamo', [False, True])
def test_export(tmp_path, dynamo):
    net = tiny()
    images = torch.randn(2, 3, 40, 40)
    file = tmp_path / 'net.onnx'
    torch.onnx.export(
        fuse_for_inference(net), (images,), file, dynamo=dynamo, opset_version=18, verbose=False
    )
    session = create_session(file)
    outputs = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    assert_equal([torch.tensor(y) for y in outputs], net(images))


def test_shared_convolutions_with_norms_of_their_own():
    class Levels(nn.Module):
        def __init__(self):
            super().__init__()
            conv = nn.Conv2d(3, 4, 1, bias=False)
            self.levels = nn.ModuleList(nn.Sequential(conv, nn.BatchNorm2d(4)) for _ in range(2))

        def forward(self, x):
            return [level(x) for level in self.levels]

    model = trained(Levels())
    image = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        assert_equal(fuse_for_inference(model)(image), model(image))


@pytest.mark.parametrize(
    'config',
    [
        'ssdlite/ssdlite_hadaptive-s_8xb24-600e_coco.py',
        'retinanet/retinanet-lite_hadaptive-s_384_600e_coco.py',
        'rtmdet/rtmdet-tiny_hadaptive-s_8xb32-300e_coco.py',
        'ssdlite/ssdlite_mobilenetv2-ach_8xb24-600e_coco.py',
    ],
)
def test_detectors(config):
    init_default_scope('mmdet')
    settings = Config.fromfile(CONFIGS / config).model
    settings.test_cfg.score_thr = 0.0
    model = MODELS.build(settings)
    model.init_weights()
    trained(model)
    fused = fuse_for_inference(model)
    assert not any(isinstance(m, _BatchNorm) for m in fused.modules())
    shape = (128, 128)
    sample = DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0)))
    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    with torch.no_grad():
        for actual, expected in zip(
            fused(image[None] / 255), model(image[None] / 255), strict=True
        ):
            assert_equal(actual, expected)
    results = [m.test_step(dict(inputs=[image], data_samples=[sample]))[0] for m in (fused, model)]
    found, wanted = (result.pred_instances for result in results)
    assert len(found) == len(wanted) > 0
    assert torch.allclose(found.scores, wanted.scores, atol=1e-4)
