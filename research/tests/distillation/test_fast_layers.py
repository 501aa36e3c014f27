"""The layers that train faster do what the plain ones do."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch

from mmdet_hadaptive.layers import ConvNormAct
from mmdet_hadaptive.models import HadaptiveNet
from mmdet_hadaptive.models.architectures import ach, conv, ghost, inverted_residual
from research.distillation import fast_layers
from research.distillation.fast_layers import FastLayersHook, use_fast_layers

pytestmark = pytest.mark.skipif(
    not (shutil.which('g++') and shutil.which('ninja')),
    reason='the C++ file needs g++ and ninja: pip install ninja',
)
TABLE = dict(
    stages=[
        [conv(8, 2, stride=2, act=False)],
        # 24 and 22 channels: pieces of several lengths.
        [ghost(12, 3, 2), ghost(12, 2, 3)],
        [inverted_residual(12, 22, 5), ach(12, 5, 7)],
    ],
    final_channels=16,
)


def make_net():
    torch.manual_seed(0)
    net = HadaptiveNet(TABLE, out_indices=(1, 2, 3))
    net.init_weights()
    return net.train()


def make_lite0():
    torch.manual_seed(0)
    net = timm.create_model('tf_efficientnet_lite0', features_only=True, out_indices=(0, 1, 2))
    # Rounding errors grow with the depth.
    net.blocks = net.blocks[:3]
    return net


def run(net, x):
    torch.manual_seed(1)
    outputs = net(x)
    sum((y.float() - 0.3).square().mean() for y in outputs).backward()
    return outputs


@pytest.mark.parametrize('make', [make_net, make_lite0])
def test_outputs_gradients_and_statistics_are_those_of_the_plain_layers(make):
    plain, fast = make().train(), use_fast_layers(make().train())
    assert any(type(a) is not type(b) for a, b in zip(plain.modules(), fast.modules(), strict=True))
    x = torch.randn(5, 3, 26, 22)
    expected, found = run(plain, x), run(fast, x.contiguous(memory_format=torch.channels_last))
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-4)
    for (name, a), b in zip(plain.named_parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, atol=1e-5, rtol=1e-3, msg=name)
    for (name, a), b in zip(plain.named_buffers(), fast.buffers(), strict=True):
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-4, msg=name)


def test_bfloat16_is_close():
    table = dict(TABLE, stages=[*TABLE['stages'][:2], [inverted_residual(12, 22, 5)]])
    torch.manual_seed(0)
    net = use_fast_layers(HadaptiveNet(table, out_indices=(2,))).train()
    x = torch.randn(5, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    (expected,), (found,) = net(x), net(x.bfloat16())
    assert found.dtype == torch.bfloat16
    assert (found - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize('make', [make_net, make_lite0])
def test_evaluation_is_the_plain_layers(make):
    plain, fast = make().eval(), use_fast_layers(make()).eval()
    x = torch.randn(2, 3, 32, 32)
    for a, b in zip(plain(x), fast(x), strict=True):
        torch.testing.assert_close(b, a)


def test_a_hook_trains_a_backbone_in_bfloat16_and_evaluates_it_in_float32():
    plain, detector = make_net(), SimpleNamespace(backbone=make_net())
    FastLayersHook().before_run(SimpleNamespace(model=detector))
    seen, net = [], detector.backbone
    layer = next(module for module in net.modules() if isinstance(module, ConvNormAct))
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    x = torch.randn(2, 3, 32, 32)
    for a, b in zip(plain.eval()(x), net.eval()(x), strict=True):
        torch.testing.assert_close(b, a)
    assert {y.dtype for y in net.train()(x)} == {torch.float32}
    assert seen == [torch.float32, torch.bfloat16]


def test_two_programs_may_compile_at_the_same_time(tmp_path, monkeypatch):
    folders = []

    def load(name, sources, *, build_directory, **options):
        folders.append(build_directory)
        if len(folders) == 1:
            # Another program begins later and ends earlier.
            fast_layers.compile_library()
        Path(build_directory, f'{name}.so').write_text(build_directory)

    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setattr(fast_layers, 'load', load)
    library = fast_layers.compile_library()
    assert fast_layers.compile_library() == library
    assert len(folders) == 2
    assert library.read_text() == folders[0]
    assert [*library.parent.iterdir()] == [library]
