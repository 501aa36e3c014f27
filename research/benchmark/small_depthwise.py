"""Depthwise convolutions on maps of a few pixels, in half of their time."""

from functools import cache

import torch
from torch import Tensor, nn

# With more pixels most of the products would be with zeros.
_MAX_PIXELS = 16


class SmallMapDepthwise(nn.Conv2d):
    """A depthwise convolution that is a matrix product for each channel where maps are small.

    On maps of 4 x 4 and 2 x 2 pixels a kernel of 5 x 5 or 7 x 7 reaches nearly every pixel from
    every other, and the backward pass of torch's convolution takes most of a training step on a
    CPU. Values and gradients are the same up to rounding.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape (B, C, H, W)."""
        images, channels, height, width = x.shape
        pixels = height * width
        if pixels > _MAX_PIXELS:
            return super().forward(x)
        places = _places(self.kernel_size[0], height, width).to(x)
        matrices = (self.weight.flatten(1) @ places).view(channels, pixels, pixels)
        rows = x.permute(1, 0, 2, 3).reshape(channels, images, pixels)
        y = torch.bmm(rows, matrices).view(channels, images, height, width)
        return y.permute(1, 0, 2, 3).contiguous(memory_format=torch.channels_last)


def use_small_depthwise(model: nn.Module) -> None:
    """Has a model's depthwise convolutions of stride 1, without bias, computed so."""
    for module in model.modules():
        if (
            type(module) is nn.Conv2d
            and module.groups == module.in_channels > 1
            and module.stride == (1, 1)
            and module.bias is None
        ):
            module.__class__ = SmallMapDepthwise


@cache
def _places(kernel: int, height: int, width: int) -> Tensor:
    """Which weight (K K) leads from which pixel to which (H W H W): one where it does, else 0."""
    y, x = (
        axis.flatten()
        for axis in torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    )
    down, right = (axis[:, None] - axis[None] + kernel // 2 for axis in (y, x))
    inside = (down >= 0) & (down < kernel) & (right >= 0) & (right < kernel)
    weight = torch.where(inside, down * kernel + right, -1)
    return (weight.flatten() == torch.arange(kernel**2)[:, None]).float()
