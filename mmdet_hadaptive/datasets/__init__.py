"""COCO data sets with checks, their images and metric, and the embedded data set of shapes."""

from .check_config import check_config, check_num_classes
from .coco import CheckedCocoDataset
from .coco_metric import FastCocoMetric
from .findings import Finding
from .shapes import SHAPE_CLASSES, draw_shapes, make_shapes
from .ssd_crop import LoadSSDCrop

__all__ = [
    'SHAPE_CLASSES',
    'CheckedCocoDataset',
    'FastCocoMetric',
    'Finding',
    'LoadSSDCrop',
    'check_config',
    'check_num_classes',
    'draw_shapes',
    'make_shapes',
]
