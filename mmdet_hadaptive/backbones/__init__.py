"""Hadaptive-Net as a backbone."""

from .adaptive_blocks import adaptive_bottleneck, with_adaptive_bottlenecks
from .architectures import ARCHITECTURES
from .hadaptive_net import HadaptiveNet

__all__ = ['ARCHITECTURES', 'HadaptiveNet', 'adaptive_bottleneck', 'with_adaptive_bottlenecks']
