"""DySoft: the normalisation of the products."""

import torch
from torch import Tensor, nn


class DySoft(nn.Module):
    """Dynamic softsign, ``weight * (alpha x) / (1 + |alpha x|) + bias``.

    It bounds products without statistics of the batch. The range of products grows with the square
    of their factors. Input and output: (B, num_channels, H, W), any floating dtype.

    Source: arXiv 2505.22226 v2, section 3 (DySoft).

    Args:
        num_channels: The number of products P. ``weight`` (initially 1) and ``bias`` (initially 0)
            have one value per product. ``alpha`` (initially 0.5) is a single value.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), 0.5))
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (B, P, H, W), keeping shape and dtype."""
        # Under autocast x may have lower precision. The large maps should keep it.
        alpha, weight, bias = (
            value.to(x.dtype).view(1, -1, 1, 1) for value in (self.alpha, self.weight, self.bias)
        )
        return nn.functional.softsign(alpha * x) * weight + bias

    def extra_repr(self) -> str:
        """Returns the number of channels for the layer's ``repr``."""
        return f'{self.weight.numel()}'
