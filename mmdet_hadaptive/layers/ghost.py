"""Ghost expansion."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .conv import ConvNormAct


class GhostExpansion(nn.Module):
    """Expands channels: half by a pointwise convolution, half by a cheap depthwise convolution.

    Input: (B, in_channels, H, W). Output: (B, out_channels, H, W), the Hardswish of a normalised
        1x1 convolution, and the normalised 3x3 depthwise convolution of its result.

    Source: arXiv 1911.11907 (GhostNet); arXiv 2505.22226, section 3 (use in Hadaptive-Net).

    Args:
        in_channels: The number of input channels.
        out_channels: The number of output channels, even.
        norm_layer: Makes the normalisation for a number of channels.

    Raises:
        ValueError: If ``out_channels`` is odd.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        if out_channels % 2:
            raise ValueError(f'out_channels must be even, got {out_channels}')
        self.out_channels = out_channels
        half = out_channels // 2
        self.primary = ConvNormAct(in_channels, half, 1, norm_layer=norm_layer)
        self.cheap = ConvNormAct(half, half, 3, groups=half, act=False, norm_layer=norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        """Expands (B, in_channels, H, W) to (B, out_channels, H, W)."""
        primary = self.primary(x)
        cheap = self.cheap(primary)
        if cheap.requires_grad and not torch.compiler.is_compiling():
            # Otherwise the gradient is a part of the result's gradient, with gaps, for which the
            # backward pass of a batch normalisation is several times slower in channels_last.
            cheap.register_hook(torch.clone)
        return torch.cat([primary, cheap], dim=1)
