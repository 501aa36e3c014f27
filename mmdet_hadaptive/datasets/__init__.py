"""Data sets: COCO format with checks, and the embedded shapes."""

from .check import Finding, check_coco
from .coco import CheckedCocoDataset
from .shapes import SHAPE_CLASSES, draw_shapes, make_shapes

__all__ = [
    'SHAPE_CLASSES',
    'CheckedCocoDataset',
    'Finding',
    'check_coco',
    'draw_shapes',
    'make_shapes',
]
