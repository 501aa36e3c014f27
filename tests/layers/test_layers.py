import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmdet_hadaptive.layers import (
    AdaptiveBottleneck,
    AdaptiveCrossHadamard,
    ConvNormAct,
    DySoft,
    ECAScorer,
    GhostExpansion,
)


def test_dysoft_equals_its_formula():
    layer = DySoft(3)
    assert layer.alpha.tolist() == [0.5]
    with torch.no_grad():
        layer.alpha.fill_(1.3)
        layer.weight.copy_(torch.tensor([1.0, -2.0, 3.0]))
        layer.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    x = torch.randn(2, 3, 4, 5)
    y = layer(x)
    for b, c, i, j in [(0, 0, 0, 0), (1, 1, 3, 4), (0, 2, 2, 1)]:
        scaled = 1.3 * x[b, c, i, j]
        expected = layer.weight[c] * scaled / (1 + abs(scaled)) + layer.bias[c]
        assert y[b, c, i, j].item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_dysoft_keeps_the_dtype(dtype):
    x = torch.randn(2, 3, 2, 2, dtype=dtype)
    y = DySoft(3)(x)
    assert y.dtype == dtype
    assert torch.allclose(y, 0.5 * x / (1 + (0.5 * x).abs()), atol=1e-2)


def test_dysoft_gradcheck():
    layer = DySoft(3).double()
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, *_: layer(x), (x, layer.alpha, layer.weight, layer.bias)
    )


def test_scorer_is_a_sliding_window_over_channels():
    scorer = ECAScorer()
    x = torch.randn(2, 9, 3, 4)
    pooled = nn.functional.pad(x.mean((2, 3)), (2, 2))
    kernel = scorer.conv.weight.flatten()
    expected = torch.stack([(pooled[:, c : c + 5] * kernel).sum(1) for c in range(9)], 1)
    assert torch.allclose(scorer(x), expected, atol=1e-6)
    assert sum(p.numel() for p in scorer.parameters()) == 5


def test_ghost_halves():
    ghost = GhostExpansion(4, 10).eval()
    x = torch.randn(2, 4, 6, 6)
    y = ghost(x)
    assert y.shape == (2, 10, 6, 6)
    assert torch.equal(y[:, :5], ghost.primary(x))
    assert torch.equal(y[:, 5:], ghost.cheap(y[:, :5]))


@settings(deadline=None, max_examples=30)
@given(
    height=st.integers(2, 11),
    width=st.integers(2, 11),
    stride=st.sampled_from([1, 2]),
    kernel=st.sampled_from([2, 3, 5]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_bottleneck_shapes(height, width, stride, kernel, dtype):
    expansion = AdaptiveCrossHadamard(6, 3)
    kernel = 5 if stride == 1 else kernel
    block = AdaptiveBottleneck(6, 8, expansion, kernel, stride).to(dtype)
    y = block(torch.randn(2, 6, height, width, dtype=dtype))
    # Odd kernels have padding: an odd side length is rounded up.
    pad = (stride - 1) * (kernel % 2)
    assert y.shape == (2, 8, (height + pad) // stride, (width + pad) // stride)
    assert y.dtype == dtype


@pytest.mark.parametrize(
    ('out_channels', 'stride', 'adds'), [(6, 1, True), (8, 1, False), (6, 2, False)]
)
def test_residual_only_where_it_fits(out_channels, stride, adds):
    block = AdaptiveBottleneck(
        6, out_channels, GhostExpansion(6, 12), 2 if stride == 2 else 3, stride
    ).eval()
    x = torch.randn(1, 6, 4, 4)
    with torch.no_grad():
        block.projection.norm.weight.zero_()
        block.projection.norm.bias.zero_()
        y = block(x)
    assert torch.equal(y, x) if adds else not y.any()


@pytest.mark.parametrize(
    ('kernel_size', 'expected'),
    # The even kernel does not see the last row and column; the odd one has zeros around them.
    [
        (2, [[12.0, 20.0], [52.0, 60.0]]),
        (3, [[12.0, 27.0, 24.0], [63.0, 108.0, 81.0], [72.0, 117.0, 84.0]]),
    ],
)
def test_stride_two_pads_odd_kernels_only(kernel_size, expected):
    conv = ConvNormAct(1, 1, kernel_size, 2, act=False).eval()
    with torch.no_grad():
        conv.conv.weight.fill_(1.0)
    image = torch.arange(25.0).view(1, 1, 5, 5)
    y = conv(image) * (1 + conv.norm.eps) ** 0.5
    assert torch.allclose(y, torch.tensor([[expected]]))


def test_wrong_arguments():
    with pytest.raises(ValueError, match='out_channels must be even, got 5'):
        GhostExpansion(4, 5)
    with pytest.raises(ValueError, match='stride must be 1 or 2, got 3'):
        AdaptiveBottleneck(4, 4, GhostExpansion(4, 8), 3, 3)
    with pytest.raises(ValueError, match='kernel_size must be 2 or odd where stride is 2, got 4'):
        AdaptiveBottleneck(4, 4, GhostExpansion(4, 8), 4, 2)
    with pytest.raises(ValueError, match='kernel_size must be odd where stride is 1, got 2'):
        ConvNormAct(4, 4, 2)
