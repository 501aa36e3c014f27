"""Weights to start from: the authors' classifiers, and configs that begin with a classifier."""

from .options import pretrained_options
from .released_checkpoint import convert_released_checkpoint

__all__ = ['convert_released_checkpoint', 'pretrained_options']
