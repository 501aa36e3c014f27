"""Copies of trained models that compute the same with less."""

from .fuse import fuse_for_inference
from .prune import PruningReport, prune_products

__all__ = ['PruningReport', 'fuse_for_inference', 'prune_products']
