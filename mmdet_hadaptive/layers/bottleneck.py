"""The bottleneck that Hadaptive-Net is made of."""

from collections.abc import Callable

from torch import Tensor, nn

from .conv import ConvNormAct


class AdaptiveBottleneck(nn.Module):
    """Expansion, depthwise convolution, pointwise projection, and a residual where it fits.

    Stride 1 keeps height and width. Stride 2 halves them: a 2 x 2 depthwise kernel, as in the
    paper, rounds down, and an odd one rounds up (:class:`ConvNormAct`). The input is added where
    the stride is 1 and the channels match.

    Source: arXiv 2505.22226, section 3 (adaptive bottleneck).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        expansion: Widens the channels at the same size; its attribute ``out_channels`` says to
            how many (:class:`GhostExpansion`, :class:`AdaptiveCrossHadamard` or a 1x1
            :class:`ConvNormAct`).
        kernel_size: Side length of the depthwise kernel in pixels: odd, or 2 where the stride is 2.
        stride: 1 or 2.
        norm_layer: Makes the normalisation for a number of channels.

    Raises:
        ValueError: If ``stride`` or ``kernel_size`` is not one of those.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        expansion: nn.Module,
        kernel_size: int,
        stride: int = 1,
        norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise ValueError(f'stride must be 1 or 2, got {stride}')
        if stride == 2 and kernel_size != 2 and kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be 2 or odd where stride is 2, got {kernel_size}')
        width = expansion.out_channels
        self.add_input = stride == 1 and in_channels == out_channels
        self.expansion = expansion
        self.depthwise = ConvNormAct(
            width, width, kernel_size, stride, groups=width, norm_layer=norm_layer
        )
        self.projection = ConvNormAct(width, out_channels, 1, act=False, norm_layer=norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        y = self.projection(self.depthwise(self.expansion(x)))
        return x + y if self.add_input else y
