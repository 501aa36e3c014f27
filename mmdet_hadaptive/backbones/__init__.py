"""Hadaptive-Net as a backbone."""

from .adaptive_blocks import adaptive_bottleneck, with_adaptive_bottlenecks
from .architectures import ARCHITECTURES, PUBLISHED_ARCHITECTURES
from .hadaptive_net import HadaptiveNet

__all__ = [
    'ARCHITECTURES',
    'PUBLISHED_ARCHITECTURES',
    'HadaptiveNet',
    'adaptive_bottleneck',
    'with_adaptive_bottlenecks',
]
