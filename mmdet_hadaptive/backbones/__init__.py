"""Hadaptive-Net as a backbone."""

from .architectures import ARCHITECTURES
from .hadaptive_net import HadaptiveNet

__all__ = ['ARCHITECTURES', 'HadaptiveNet']
