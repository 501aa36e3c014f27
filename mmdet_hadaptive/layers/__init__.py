"""Torch modules built from :mod:`mmdet_hadaptive.ops` (torch only)."""

from .adaptive_cross_hadamard import AdaptiveCrossHadamard
from .bottleneck import AdaptiveBottleneck
from .conv import ConvNormAct
from .dysoft import DySoft
from .eca import ECAScorer
from .ghost import GhostExpansion

__all__ = [
    'AdaptiveBottleneck',
    'AdaptiveCrossHadamard',
    'ConvNormAct',
    'DySoft',
    'ECAScorer',
    'GhostExpansion',
]
