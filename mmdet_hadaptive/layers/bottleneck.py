"""The bottleneck of Hadaptive-Net."""

from collections.abc import Callable

from torch import Tensor, nn

from .conv import ConvNormAct


class AdaptiveBottleneck(nn.Module):
    """Expansion, depthwise convolution, pointwise projection, and a residual connection.

    Stride 1 keeps height and width. Stride 2 halves them: a 2 x 2 depthwise kernel, as in the
    paper, rounds down, and an odd one rounds up (:class:`ConvNormAct`). The input is added if the
    stride is 1 and the channels are equal.

    Source: arXiv 2505.22226, section 3 (adaptive bottleneck).

    Args:
        in_channels: The number of input channels.
        out_channels: The number of output channels.
        expansion: Increases the number of channels to its attribute ``out_channels``, at the same
            size (:class:`GhostExpansion`, :class:`AdaptiveCrossHadamard` or a 1x1
            :class:`ConvNormAct`).
        kernel_size: The side of the depthwise kernel in pixels: odd, or 2 if the stride is 2.
        stride: 1 or 2.
        norm_layer: Makes the normalisation for a number of channels.

    Raises:
        ValueError: If ``stride`` or ``kernel_size`` has another value.
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
