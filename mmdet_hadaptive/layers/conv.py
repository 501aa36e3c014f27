"""Convolution with normalisation and activation."""

from collections.abc import Callable

from torch import Tensor, nn


class ConvNormAct(nn.Sequential):
    """Convolution without bias, normalisation, and Hardswish unless switched off.

    Input (B, in_channels, H, W), output (B, out_channels, H', W'). A stride of 1 keeps the size. A
    larger one divides it and rounds down where the kernel is odd or as long as the stride, so that
    all of these kernels are alike in the size of their output. Odd kernels have padding
    (kernel_size - 1) / 2, even ones have none. What does not fill the last step of the stride is
    left out: with the 2 x 2 kernels of stride 2 in the paper's tables (arXiv 2505.22226) an odd
    side length loses its last row or column, and the same is cut off before an odd kernel, which
    would otherwise put out one row or column more.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side length of the kernel in pixels; odd where the stride is 1.
        stride: Step in pixels.
        groups: Groups of the convolution; ``in_channels`` makes it depthwise.
        act: Whether a Hardswish follows.
        norm_layer: Makes the normalisation for a number of channels.

    Attributes:
        out_channels: Channels of the output; so that a 1x1 convolution is an expansion
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

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, H', W')."""
        # Asked of the convolution, in whose place a fused one may be.
        stride = self.conv.stride[0]
        if stride > 1 and self.conv.kernel_size[0] % 2:
            height, width = x.shape[-2:]
            if height % stride or width % stride:
                x = x[..., : height // stride * stride, : width // stride * stride]
        return super().forward(x)
