"""Convolution with normalisation and activation."""

from collections.abc import Callable

from torch import nn


class ConvNormAct(nn.Sequential):
    """Convolution without bias, normalisation, and Hardswish (optional).

    Maps (B, in_channels, H, W) to (B, out_channels, H', W'). A stride of 1 keeps the size. Odd
    kernels have padding (kernel_size - 1) / 2, so H' is H / stride, rounded up. Even kernels have
    no padding. With the 2 x 2 kernels of stride 2 in the paper's tables (arXiv 2505.22226), H' is H
    / 2, rounded down. Then an odd side loses its last row or column.

    Args:
        in_channels: The number of input channels.
        out_channels: The number of output channels.
        kernel_size: The side of the kernel in pixels. It is odd if the stride is 1.
        stride: The stride in pixels.
        groups: The groups of the convolution. ``in_channels`` makes it depthwise.
        act: Whether a Hardswish follows.
        norm_layer: Makes the normalisation for a number of channels.

    Attributes:
        out_channels: The number of output channels. With it a 1x1 convolution can be an expansion
            (:class:`AdaptiveBottleneck`).

    Raises:
        ValueError: If the kernel is even and the stride is 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        act: bool = True,
        norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        if stride == 1 and kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd where stride is 1, got {kernel_size}')
        super().__init__()
        self.out_channels = out_channels
        self.add_module(
            'conv',
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride,
                padding=(kernel_size - 1) // 2 if kernel_size % 2 else 0,
                groups=groups,
                bias=False,
            ),
        )
        self.add_module('norm', norm_layer(out_channels))
        if act:
            self.add_module('act', nn.Hardswish(inplace=True))
