"""Copies of trained models that compute the same with less."""

from .fuse import fuse_for_inference

__all__ = ['fuse_for_inference']
