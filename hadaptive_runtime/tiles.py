"""Detects in overlapping tiles, so that small objects of large images are seen at full size."""

import itertools
from collections.abc import Callable

import numpy as np

from .detections import Detections, import_supervision
from .detector import Detector
from .suppression import common_areas

# The part of a tile's side that its neighbour has as well: smaller objects are whole in one.
_OVERLAP = 0.2
# Boxes from two tiles are those of one object if so much of the smaller one lies in the other.
_SAME = 0.5


def detect_in_tiles(detector: Detector, side: int) -> Callable[[np.ndarray], Detections]:
    """Makes a detector that sees images in tiles, by the ``InferenceSlicer`` of supervision.

    Args:
        detector: The detector, which gets each tile as an image of its own.
        side: Width and height of a tile, in pixels of the image.

    Returns:
        What detects in an image (H, W, 3), uint8, BGR.

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
    """Indices of the boxes that are kept, the best first.

    Among those of one tile the detector has chosen; here one of a pair from two tiles is left out.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.argsort(-scores, kind='stable')
    kept: list[int] = []
    while len(left):
        best, others = left[0], left[1:]
        kept.append(int(best))
        # Of an object at the edge of a tile, that tile sees a part: it lies in the whole box.
        smaller = np.minimum(areas[best], areas[others])
        doubled = common_areas(boxes[best], boxes[others]) > _SAME * smaller
        doubled &= (labels[others] == labels[best]) & (tiles[others] != tiles[best])
        left = others[~doubled]
    return kept
