"""Pairwise Hadamard products of channels."""

import torch
from torch import Tensor


def pairwise_products(x: Tensor) -> Tensor:
    """Multiplies every pair of channels element by element.

    The pairs are ordered (0, 1), (0, 2), ..., (0, s-1), (1, 2), ..., (s-2, s-1).

    Source: arXiv 2505.22226, section 3 (cross-Hadamard product).

    Args:
        x: Shape (B, s, H, W) with s >= 2, any floating dtype.

    Returns:
        Shape (B, s * (s - 1) / 2, H, W), dtype of ``x``.

    Raises:
        ValueError: If ``x`` is not 4-dimensional or has fewer than two channels.
    """
    if x.dim() != 4:
        raise ValueError(f'pairwise_products needs a tensor (B, s, H, W), got {tuple(x.shape)}')
    channels = x.shape[1]
    if channels < 2:
        raise ValueError(f'pairwise_products needs at least 2 channels, got {channels}')
    # One broadcast product per first channel reads and writes each value once. To index both
    # factors of all pairs would first copy 2 * s * (s - 1) / 2 channels.
    return torch.cat([x[:, i : i + 1] * x[:, i + 1 :] for i in range(channels - 1)], dim=1)
