"""Pre-trained weights: the package's own, and the authors'."""

from .released_checkpoint import convert_released_checkpoint
from .weights import distilled_weights, pretrained_checkpoint

__all__ = [
    'convert_released_checkpoint',
    'distilled_weights',
    'pretrained_checkpoint',
]
