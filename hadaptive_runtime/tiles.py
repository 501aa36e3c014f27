"""Detects in overlapping tiles, so that small objects in large images keep their size."""

import itertools
from collections.abc import Callable

import numpy as np

from .detections import Detections, import_supervision
from .detector import Detector
from .suppression import common_areas

# The part of a tile's side that its neighbour also has. Smaller objects are complete in one tile.
_OVERLAP = 0.2
# Boxes of two tiles show one object if this part of the smaller box lies in the other.
_SAME = 0.5


def detect_in_tiles(detector: Detector, side: int) -> Callable[[np.ndarray], Detections]:
    """Makes a detector that cuts images into tiles, by supervision's ``InferenceSlicer``.

    Args:
        detector: The detector. It gets each tile as an image.
        side: Width and height of a tile, in pixels of the image.

    Returns:
        A function that detects in an image (H, W, 3), uint8, BGR.

    Raises:
        ExportError: If supervision is not installed.
    """
    supervision = import_supervision()
    numbers = itertools.count()

    def detect_in_tile(tile: np.ndarray) -> 'supervision.Detections':
        found = detector(np.ascontiguousarray(tile)).to_supervision()
        found.data['tile'] = np.full(len(found), next(numbers))
        return found

    slicer = supervision.InferenceSlicer(
        callback=detect_in_tile,
        slice_wh=(side, side),
        overlap_wh=(round(_OVERLAP * side),) * 2,
        overlap_filter=supervision.OverlapFilter.NONE,
    )

    def detect(image: np.ndarray) -> Detections:
        if max(image.shape[:2]) <= side:
            return detector(image)
        found = slicer(image)
        if not len(found):
            return Detections(np.zeros((0, 4), np.float32), np.float32([]), np.int64([]), [])
        kept = _suppress(found.xyxy, found.confidence, found.class_id, found.data['tile'])
        labels = found.class_id[kept].astype(np.int64)
        return Detections(
            boxes=np.float32(found.xyxy[kept]),
            scores=np.float32(found.confidence[kept]),
            labels=labels,
            class_names=[detector.classes[label] for label in labels],
        )

    return detect


def _suppress(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, tiles: np.ndarray
) -> list[int]:
    """Returns the indices of the boxes to keep, the best first.

    The detector has already selected the boxes within a tile. This leaves out one of two boxes from
    two tiles.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.argsort(-scores, kind='stable')
    kept: list[int] = []
    while len(left):
        best, others = left[0], left[1:]
        kept.append(int(best))
        # A tile sees only a part of an object at its edge. This part's box lies in the whole box.
        smaller = np.minimum(areas[best], areas[others])
        doubled = common_areas(boxes[best], boxes[others]) > _SAME * smaller
        doubled &= (labels[others] == labels[best]) & (tiles[others] != tiles[best])
        left = others[~doubled]
    return kept
