"""Puts Hadaptive-Net into a config of MMDetection, and tries the result before it is written."""

from .swap import SwapError, swap_backbone

__all__ = ['SwapError', 'swap_backbone']
