"""Weights to start from: the package's own, the authors', and configs that begin with them."""

from .options import pretrained_options
from .released_checkpoint import convert_released_checkpoint
from .weights import distilled_weights, pack_weights, pretrained_checkpoint

__all__ = [
    'convert_released_checkpoint',
    'distilled_weights',
    'pack_weights',
    'pretrained_checkpoint',
    'pretrained_options',
]
