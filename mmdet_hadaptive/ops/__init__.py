"""The mathematics of Adaptive Cross-Hadamard as pure functions on tensors (torch only)."""

from .expansion import append_products
from .products import pairwise_products
from .selection import gather_channels, gumbel_noise, gumbel_top_k

__all__ = [
    'append_products',
    'gather_channels',
    'gumbel_noise',
    'gumbel_top_k',
    'pairwise_products',
]
