import subprocess
import sys

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from mmdet_hadaptive.layers import AdaptiveBottleneck, AdaptiveCrossHadamard, DySoft
from mmdet_hadaptive.models import HadaptiveNet, backbone_with_ach

MOBILENET = dict(type='mmdet.MobileNetV2', out_indices=(4, 7))


def test_registered_layer():
    layer = MODELS.build(
        dict(type='AdaptiveBottleneck', in_channels=8, out_channels=12, num_selected=4)
    )
    assert isinstance(layer, AdaptiveBottleneck)
    assert isinstance(layer.expansion, AdaptiveCrossHadamard)
    assert isinstance(layer.expansion.product_norm, DySoft)
    assert layer(torch.randn(2, 8, 6, 6)).shape == (2, 12, 6, 6)


def test_layer_norm_and_stride():
    layer = MODELS.build(
        dict(
            type='AdaptiveBottleneck',
            in_channels=8,
            out_channels=8,
            num_selected=4,
            kernel_size=2,
            stride=2,
            product_norm='BN',
            norm_cfg=dict(type='BN', eps=0.01),
        )
    )
    norms = [m for m in layer.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 4
    assert {norm.eps for norm in norms} == {0.01}
    assert layer(torch.randn(2, 8, 6, 6)).shape == (2, 8, 3, 3)
    with pytest.raises(ValueError, match="'DySoft' or 'BN' in an AdaptiveBottleneck, got 'LN'"):
        MODELS.build(
            dict(
                type='AdaptiveBottleneck',
                in_channels=8,
                out_channels=8,
                num_selected=4,
                product_norm='LN',
            )
        )


def test_last_two_blocks_of_mobilenet_v2():
    init_default_scope('mmdet')
    plain = MODELS.build(MOBILENET)
    options = dict(num_selected=32)
    net = MODELS.build(
        dict(
            type='BackboneWithACH',
            backbone=MOBILENET,
            blocks={'layer6.2': options, 'layer7.0': options},
        )
    )
    replaced = [name for name, m in net.named_modules() if isinstance(m, AdaptiveBottleneck)]
    assert replaced == ['layer6.2', 'layer7.0']
    # Looking at the blocks has left the running statistics alone.
    assert net.training
    for name, buffer in net.named_buffers():
        if name in plain.state_dict():
            assert torch.equal(buffer, plain.state_dict()[name]), name
    # Weights of the rest still fit.
    result = net.load_state_dict(plain.state_dict(), strict=False)
    assert {key.rsplit('.', 1)[0][:8] for key in result.missing_keys} == {'layer6.2', 'layer7.0'}
    net.init_weights()
    net.train()
    image = torch.randn(2, 3, 64, 64)
    outputs = net(image)
    assert [x.shape for x in outputs] == [x.shape for x in plain(image)]
    sum(x.sum() for x in outputs).backward()
    assert all(p.grad is not None for p in net.parameters())


def test_the_stride_of_the_old_block_is_kept():
    net = backbone_with_ach(MOBILENET, {'layer6.0': dict(num_selected=4, kernel_size=2)})
    assert net.layer6[0].depthwise.conv.stride == (2, 2)
    assert [x.shape[-1] for x in net(torch.randn(2, 3, 64, 64))] == [4, 2]


def test_wrong_names_of_blocks():
    with pytest.raises(ValueError, match=r"MobileNetV2 has no blocks \['layer9'\]"):
        backbone_with_ach(MOBILENET, {'layer9': dict(num_selected=4)})


# What would be left of an environment without MMDetection.
WITHOUT_MMDET = "import sys\nsys.modules['mmdet'] = None\nimport torch\n"


def run_without_mmdet(code):
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', WITHOUT_MMDET + code], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    # MMEngine warns of libraries that are missing.
    return result.stdout.strip().splitlines()[-1]


def test_backbone_in_plain_pytorch():
    code = (
        'from mmdet_hadaptive.models import HadaptiveNet\n'
        "net = HadaptiveNet('small', out_indices=(2, 3, 4))\n"
        'print([x.shape[1] for x in net(torch.randn(2, 3, 64, 64))])\n'
    )
    assert run_without_mmdet(code) == str(list(HadaptiveNet('small').out_channels))


def test_other_openmmlab_libraries_find_it():
    # Every library's registry is a child of MMEngine's.
    code = (
        'import mmdet_hadaptive\n'
        'from mmengine.registry import MODELS, Registry\n'
        "child = Registry('model', parent=MODELS, scope='mmseg')\n"
        "print(child.build(dict(type='HadaptiveNet', out_indices=(5,))).out_channels)\n"
    )
    assert run_without_mmdet(code) == '(960,)'
    init_default_scope('mmdet')
    from mmengine.registry import MODELS as ROOT

    # Beside MMDetection, by its scope.
    assert isinstance(ROOT.build(dict(type='mmdet.HadaptiveNet')), HadaptiveNet)
