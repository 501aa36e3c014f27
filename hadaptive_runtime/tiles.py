"""Detects in overlapping tiles, so that small objects of large images are seen at full size."""

from collections.abc import Callable

import numpy as np

from .detections import Detections, import_supervision
from .detector import Detector

# The part of a tile's side that its neighbour has as well: smaller objects are whole in one.
_OVERLAP = 0.2


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
    slicer = supervision.InferenceSlicer(
        callback=lambda tile: detector(np.ascontiguousarray(tile)).to_supervision(),
        slice_wh=(side, side),
        overlap_wh=(round(_OVERLAP * side),) * 2,
        # Of an object at the edge of a tile, that tile sees a part: it lies in the whole box.
        overlap_metric=supervision.OverlapMetric.IOS,
    )

    def detect(image: np.ndarray) -> Detections:
        found = slicer(image)
        order = np.argsort(-found.confidence, kind='stable') if len(found) else []
        labels = found.class_id[order] if len(found) else np.zeros(0, np.int64)
        return Detections(
            boxes=np.float32(found.xyxy[order] if len(found) else np.zeros((0, 4))),
            scores=np.float32(found.confidence[order] if len(found) else []),
            labels=labels.astype(np.int64),
            class_names=[detector.classes[label] for label in labels],
        )

    return detect
