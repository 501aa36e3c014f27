"""Channel scores by efficient channel attention without its gate."""

from torch import Tensor, nn


class ECAScorer(nn.Module):
    """Scores channels with one convolution kernel along the channel axis.

    Global average pooling, then a Conv1d with one shared kernel (5 weights, zero padding, no
    bias) over the channels. It is an ECA layer (arXiv 1910.03151) without its sigmoid.

    Source: arXiv 2505.22226 v2, section 3 (channel scores).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 5, padding=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, C, H, W) as (B, C)."""
        return self.conv(x.mean(dim=(2, 3)).unsqueeze(1)).squeeze(1)
