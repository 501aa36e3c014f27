import copy
import pickle
from pathlib import Path

import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.utils import get_installed_path
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

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
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            uniform(module.running_mean, -0.3, 0.3)
            uniform(module.running_var, 0.5, 1.5)
        if isinstance(module, (_BatchNorm, DySoft)) and module.weight is not None:
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
    assert_equal(fuse_for_inference(net, image)(image), net(image))


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
    fused = fuse_for_inference(net, torch.zeros(1, 3, 16, 16))
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
    assert_equal(fuse_for_inference(trained(net), image)(image), net(image))


@torch.no_grad()
@pytest.mark.parametrize('arch', ['small', 'medium', 'large', 'small-ir'])
def test_networks(arch):
    net = HadaptiveNet(arch)
    net.init_weights()
    trained(net)
    image = torch.randn(1, 3, 96, 70)
    fused = fuse_for_inference(net, image)
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
    assert_equal(fuse_for_inference(net, image)(image), net(image))


@torch.no_grad()
def test_a_stem_with_an_activation():
    table = copy.deepcopy(TABLE)
    table['stages'][0][0]['act'] = True
    net = HadaptiveNet(table, out_indices=(1, 2))
    net.init_weights()
    trained(net)
    image = torch.randn(1, 3, 40, 56)
    assert_equal(fuse_for_inference(net, image)(image), net(image))


def test_the_original_is_untouched():
    net = tiny().train()
    before = copy.deepcopy(net.state_dict())
    fused = fuse_for_inference(net, torch.zeros(1, 3, 16, 16))
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
    fused = fuse_for_inference(tiny(), image)
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
        fuse_for_inference(net, images),
        (images,),
        file,
        dynamo=dynamo,
        opset_version=18,
        verbose=False,
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
        assert_equal(fuse_for_inference(model, image)(image), model(image))


class ReadTwice(nn.Module):
    """A convolution and a normalisation, and something else that reads one of their tensors."""

    def __init__(self, read):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.read = read

    def forward(self, x):
        y = self.conv(x)
        return self.read(self, y, self.norm(y))


class NormAct(nn.BatchNorm2d):
    """As timm has them."""

    def forward(self, x):
        return super().forward(x).relu()


def conv_module(*order):
    return ConvModule(3, 4, 3, norm_cfg=dict(type='BN'), order=order)


def behind_a_convolution(*layers):
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), *layers)


@torch.no_grad()
@pytest.mark.parametrize(
    ('model', 'folded'),
    [
        (conv_module('conv', 'norm', 'act'), True),
        (conv_module('conv', 'act', 'norm'), False),
        (conv_module('act', 'conv', 'norm'), True),
        # The inputs have as many channels as a normalisation in front needs.
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU()), False),
        (conv_module('norm', 'conv', 'act'), False),
        (behind_a_convolution(nn.ReLU(), nn.BatchNorm2d(4)), False),
        (behind_a_convolution(nn.ReLU(inplace=True), nn.BatchNorm2d(4)), False),
        (behind_a_convolution(nn.BatchNorm2d(4)), True),
        (behind_a_convolution(nn.SyncBatchNorm(4)), True),
        (behind_a_convolution(nn.BatchNorm2d(4, affine=False)), True),
        (behind_a_convolution(nn.BatchNorm2d(4, track_running_stats=False)), False),
        (behind_a_convolution(nn.BatchNorm2d(4), nn.BatchNorm2d(4)), True),
        (behind_a_convolution(NormAct(4)), False),
        (nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)), False),
        (ReadTwice(lambda own, y, z: z), True),
        (ReadTwice(lambda own, y, z: z * y.shape[1]), True),
        (ReadTwice(lambda own, y, z: z + y), False),
        (ReadTwice(lambda own, y, z: [z, {'y': y}]), False),
        (ReadTwice(lambda own, y, z: z.relu_() + own.norm(y)), False),
        (ReadTwice(lambda own, y, z: z * own.conv.weight.sum()), False),
        (ReadTwice(lambda own, y, z: z + own.norm.bias.sum()), False),
        (ReadTwice(lambda own, y, z: own.norm(z)), False),
    ],
)
def test_only_a_norm_that_alone_reads_its_convolution_is_folded(model, folded):
    trained(model)
    image = torch.randn(2, 3, 9, 9)
    fused = fuse_for_inference(model, image)
    assert_equal(tree_leaves(fused(image)), tree_leaves(model(image)), 1e-5)
    norms = [sum(isinstance(m, _BatchNorm) for m in net.modules()) for net in (model, fused)]
    assert norms[1] == norms[0] - folded


DETECTORS = [
    'atss/atss_r50_fpn_1x_coco.py',
    'centernet/centernet_r18_8xb16-crop512-140e_coco.py',
    'detr/detr_r50_8xb2-150e_coco.py',
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py',
    'retinanet/retinanet_r50_fpn_1x_coco.py',
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py',
    'yolox/yolox_tiny_8xb8-300e_coco.py',
]


# Behind transposed and deformable convolutions, or in front of one.
OTHER_NORMS = dict(centernet=3, nas_fcos=19)


@torch.no_grad()
@pytest.mark.parametrize('name', DETECTORS)
def test_detectors_of_mmdetection(name):
    init_default_scope('mmdet')
    settings = Config.fromfile(f'{get_installed_path("mmdet")}/.mim/configs/{name}').model
    detector = trained(revert_sync_batchnorm(MODELS.build(settings)))
    sample = DetDataSample(
        metainfo=dict(
            img_shape=(64, 64),
            ori_shape=(64, 64),
            batch_input_shape=(64, 64),
            scale_factor=(1.0, 1.0),
            border=(0, 64, 0, 64),
        )
    )
    pixels = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    fused = fuse_for_inference(detector, dict(inputs=[pixels], data_samples=[sample]))
    images = torch.randn(1, 3, 64, 64)
    nets = (fused, detector)
    maps, expected = (net.extract_feat(images) for net in nets)
    assert_equal(maps, expected)
    if not name.startswith('detr'):
        heads = [net.rpn_head if hasattr(net, 'rpn_head') else net.bbox_head for net in nets]
        assert_equal(*(tree_leaves(head(maps)) for head in heads))
    if name.startswith('faster_rcnn'):
        rois = torch.tensor([[0.0, 3.0, 5.0, 60.0, 50.0]])
        assert_equal(*(tree_leaves(net.roi_head._bbox_forward(maps, rois)) for net in nets))
    left = sum(isinstance(module, _BatchNorm) for module in fused.modules())
    assert left == OTHER_NORMS.get(name.split('/')[0], 0)


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
    fused = fuse_for_inference(model, torch.zeros(1, 3, 128, 128))
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
