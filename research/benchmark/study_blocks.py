"""Blocks of equal cost in place of the ACH bottlenecks of Hadaptive-Net.

All keep the frame of the bottleneck: expansion, depthwise convolution, projection, residual. What
the expansion is, and where channels are multiplied, differs. Widths follow from the
multiply-accumulates of the published block.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmdet_hadaptive.layers import (
    AdaptiveBottleneck,
    AdaptiveCrossHadamard,
    ConvNormAct,
    GhostExpansion,
)
from mmdet_hadaptive.models import HadaptiveNet

# Widths are multiples of this.
_WIDTH_STEP = 8


class StarExpansion(nn.Module):
    """relu6(a) * b, of two normalised 1x1 convolutions.

    Input (B, in_channels, H, W), output (B, out_channels, H, W).

    Source: arXiv 2403.19967 (StarNet).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.pointwise = ConvNormAct(in_channels, 2 * out_channels, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Expands (B, in_channels, H, W) to (B, out_channels, H, W)."""
        a, b = self.pointwise(x).chunk(2, dim=1)
        return F.relu6(a) * b


class FixedExpansion(nn.Module):
    """ACH with the first channels selected in every image, and relu6 on one factor.

    Input (B, in_channels, H, W), output (B, in_channels + s(s-1)/2, H, W).

    Args:
        in_channels: Channels of the input.
        num_selected: Channels s whose pairs are multiplied.
    """

    def __init__(self, in_channels: int, num_selected: int) -> None:
        super().__init__()
        self.pointwise = ConvNormAct(in_channels, in_channels, 1, act=False)
        self.num_selected = num_selected
        self.num_products = num_selected * (num_selected - 1) // 2
        self.out_channels = in_channels + self.num_products

    def forward(self, x: Tensor) -> Tensor:
        """Expands (B, C, H, W) to (B, C + s(s-1)/2, H, W)."""
        u = self.pointwise(x)
        selected = u[:, : self.num_selected]
        gates = F.relu6(selected)
        products = [
            gates[:, i : i + 1] * selected[:, i + 1 :] for i in range(self.num_selected - 1)
        ]
        return torch.cat([u, *products], dim=1)


class OuterProducts(nn.Module):
    """Appends the products of each of the first channels, in relu6, with each of the next.

    Args:
        num_gates: Channels g that go through relu6.
        num_values: Channels v that each of them is multiplied with.
    """

    def __init__(self, num_gates: int, num_values: int) -> None:
        super().__init__()
        self.num_gates = num_gates
        self.num_values = num_values
        self.num_products = num_gates * num_values

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C + g v, H, W)."""
        last = x.permute(0, 2, 3, 1)
        gates = F.relu6(last[..., : self.num_gates])
        values = last[..., self.num_gates : self.num_gates + self.num_values]
        products = (gates.unsqueeze(-1) * values.unsqueeze(-2)).flatten(-2)
        return torch.cat([last, products], dim=-1).permute(0, 3, 1, 2)


class StudyBottleneck(nn.Module):
    """A bottleneck of stride 1 with a residual, whose channels may be multiplied late.

    Args:
        channels: The channels of input and output.
        expansion: The expansion, as for :class:`AdaptiveBottleneck`.
        kernel_size: The odd side length of the depthwise kernel in pixels.
        products: Appends products to the activated depthwise convolution, behind which they cost
            no kernel of their own; none by default.

    Attributes:
        num_products: How many of the projection's inputs, the last, are products. Their columns of
            the projection start at zero.
    """

    def __init__(
        self,
        channels: int,
        expansion: nn.Module,
        kernel_size: int,
        products: nn.Module | None = None,
    ) -> None:
        super().__init__()
        width = expansion.out_channels
        self.expansion = expansion
        self.depthwise = ConvNormAct(width, width, kernel_size, groups=width)
        self.products = products
        width += products.num_products if products else 0
        self.projection = ConvNormAct(width, channels, 1, act=False)
        self.num_products = getattr(products or expansion, 'num_products', 0)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape (B, channels, H, W)."""
        h = self.depthwise(self.expansion(x))
        if self.products is not None:
            h = self.products(h)
        return x + self.projection(h)


class ModulationBottleneck(nn.Module):
    """Projects the product of a depthwise convolution and channels that went past it.

    Source: arXiv 2211.11943 (Conv2Former), the modulation, with a kernel of the published size.

    Args:
        channels: The channels of input and output.
        width: The channels of both factors.
        kernel_size: The odd side length of the depthwise kernel in pixels.
    """

    num_products = 0

    def __init__(self, channels: int, width: int, kernel_size: int) -> None:
        super().__init__()
        self.pointwise = ConvNormAct(channels, 2 * width, 1, act=False)
        self.depthwise = ConvNormAct(width, width, kernel_size, groups=width)
        self.projection = ConvNormAct(width, channels, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape (B, channels, H, W)."""
        a, b = self.pointwise(x).chunk(2, dim=1)
        return x + self.projection(self.depthwise(a) * b)


class ContextGate(nn.Module):
    """Multiplies each channel by a number between 0 and 1 that the means of all channels give.

    Input and output (B, channels, H, W).

    Source: arXiv 1709.01507 (squeeze and excitation), with the hard sigmoid of arXiv 1905.02244
    (MobileNetV3).

    Args:
        channels: Channels C.
        hidden: Channels of the layer between.

    Attributes:
        gate: Gives the factors (B, C, 1, 1) of the means (B, C, 1, 1).
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape (B, channels, H, W)."""
        return x * self.gate(x.mean((2, 3), keepdim=True))


class GatedBottleneck(StudyBottleneck):
    """An inverted bottleneck whose activated depthwise convolution is gated by its context.

    Args:
        channels: The channels of input and output.
        width: Between expansion and projection.
        kernel_size: The odd side length of the depthwise kernel in pixels.
        hidden: The hidden width, as for :class:`ContextGate`.
    """

    def __init__(self, channels: int, width: int, kernel_size: int, hidden: int) -> None:
        super().__init__(channels, ConvNormAct(channels, width, 1), kernel_size)
        self.gate = ContextGate(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape (B, channels, H, W)."""
        return x + self.projection(self.gate(self.depthwise(self.expansion(x))))


def _width(macs: float, macs_per_channel: float) -> int:
    return round(macs / macs_per_channel / _WIDTH_STEP) * _WIDTH_STEP


def _pointwise(c: int, k: int, s: int, macs: int) -> nn.Module:
    return StudyBottleneck(c, ConvNormAct(c, _width(macs, 2 * c + k * k), 1), k)


def _ghost(c: int, k: int, s: int, macs: int) -> nn.Module:
    # Half of the channels by a pointwise convolution, half by a 3 x 3 depthwise one.
    return StudyBottleneck(c, GhostExpansion(c, _width(macs, (c + 9) / 2 + k * k + c)), k)


def _star(c: int, k: int, s: int, macs: int) -> nn.Module:
    return StudyBottleneck(c, StarExpansion(c, _width(macs, 3 * c + k * k)), k)


def _modulation(c: int, k: int, s: int, macs: int) -> nn.Module:
    return ModulationBottleneck(c, _width(macs, 3 * c + k * k), k)


def _fixed(c: int, k: int, s: int, macs: int) -> nn.Module:
    return StudyBottleneck(c, FixedExpansion(c, s), k)


def _outer(c: int, k: int, s: int, macs: int) -> nn.Module:
    products = OuterProducts(s // 2, s)
    width = _width(macs - c * products.num_products, 2 * c + k * k)
    return StudyBottleneck(c, ConvNormAct(c, width, 1), k, products)


def _gated(c: int, k: int, s: int, macs: int) -> nn.Module:
    # At 64 x 64 pixels: maps of 4 x 4 with 96 channels, of 2 x 2 with 128.
    pixels = {96: 16, 128: 4}[c]
    return GatedBottleneck(c, _width(macs, 2 * c + k * k + c / 2 / pixels), k, c // 4)


# From channels, kernel size, selected channels and multiply-accumulates per pixel of a published
# block, one of the same shape.
KINDS: dict[str, Callable[[int, int, int, int], nn.Module] | None] = {
    'published': None,
    'inverted_residual': _pointwise,
    'ghost': _ghost,
    'star': _star,
    'modulation': _modulation,
    'fixed': _fixed,
    'outer': _outer,
    'gated': _gated,
}


def make_backbone(kind: str) -> HadaptiveNet:
    """Builds Hadaptive-Net-S, with its final convolution, whose ACH bottlenecks are of a kind.

    Args:
        kind: One of :data:`KINDS`; 'published' replaces nothing.

    Returns:
        The backbone, with initialised weights.
    """
    backbone = HadaptiveNet('small', out_indices=(5,))
    backbone.init_weights()
    make = KINDS[kind]
    for stage in backbone.children() if make else ():
        for index, block in enumerate(stage):
            if is_published(block):
                stage[index] = _initialized(make(*_describe(block)))
    return backbone


def is_published(block: nn.Module) -> bool:
    """Whether a block is an ACH bottleneck."""
    return isinstance(block, AdaptiveBottleneck) and isinstance(
        block.expansion, AdaptiveCrossHadamard
    )


def _describe(block: AdaptiveBottleneck) -> tuple[int, int, int, int]:
    c = block.projection.conv.out_channels
    k = block.depthwise.conv.kernel_size[0]
    width = block.expansion.out_channels
    return c, k, block.expansion.num_selected, c * c + width * (k * k + c)


def _initialized(block: nn.Module) -> nn.Module:
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_normal_(module.weight)
    if block.num_products:
        with torch.no_grad():
            block.projection.conv.weight[:, -block.num_products :] = 0
    return block
