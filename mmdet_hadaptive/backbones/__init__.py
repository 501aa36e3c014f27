"""Hadaptive-Net as a backbone."""

from .adaptive_blocks import adaptive_bottleneck, with_adaptive_bottlenecks
from .architectures import ARCHITECTURES, PUBLISHED_ARCHITECTURES
from .hadaptive_net import HadaptiveNet
from .search_net import HadaptiveSearchNet
from .search_spaces import SEARCH_SPACES

__all__ = [
    'ARCHITECTURES',
    'PUBLISHED_ARCHITECTURES',
    'SEARCH_SPACES',
    'HadaptiveNet',
    'HadaptiveSearchNet',
    'adaptive_bottleneck',
    'with_adaptive_bottlenecks',
]
