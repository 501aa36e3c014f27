"""Channel scores by efficient channel attention without its gate."""

from torch import Tensor, nn


class ECAScorer(nn.Module):
    """Scores channels with one convolution kernel along the channel axis.

    Global average pooling, then a Conv1d with one shared kernel (5 weights, zero padding, no
    bias) over the channels. It is an ECA layer (arXiv 1910.03151) without its sigmoid.

    Source: arXiv 2505.22226 v2, section 3 (channel scores).

    Args:
        kernel_size: The number of neighbouring channels for a score, odd.

    Raises:
        ValueError: If ``kernel_size`` is even.
    """

    def __init__(self, kernel_size: int = 5) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd, got {kernel_size}')
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, C, H, W) as (B, C)."""
        return self.conv(x.mean(dim=(2, 3)).unsqueeze(1)).squeeze(1)
