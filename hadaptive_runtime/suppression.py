"""Selects detections among boxes, for formats whose graph cannot do it."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def choose_detections(
    boxes: np.ndarray,
    scores: np.ndarray,
    factors: np.ndarray | None,
    settings: Mapping[str, Any],
    resized_by: np.ndarray | tuple[float, float] = (1.0, 1.0),
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Selects candidates and suppresses overlaps as MMDetection does.

    Candidates are the best ``candidates_per_level`` pairs of a prior and a class in each level. A
    candidate scores more than ``score_threshold``. Its sides exceed ``min_box_side``, in pixels of
    the image. If two candidates of a class have an intersection over union above
    ``iou_threshold``, the one with the lower score is suppressed.

    Args:
        boxes: (N, 4), (x1, y1, x2, y2) in pixels of the input.
        scores: (N, classes).
        factors: (N, 1). They multiply the scores of candidates. None changes nothing.
        settings: The metadata with the names above, ``priors_per_level`` and ``max_detections``.
        resized_by: The factors by which the image was resized, for width and height.

    Returns:
        Boxes (n, 4), scores (n,), the highest first, and labels (n,), int64.
    """
    num_classes = scores.shape[1]
    flat = scores.ravel()
    candidates = _best_of_levels(flat, num_classes, settings)
    candidates = candidates[flat[candidates] > settings['score_threshold']]
    priors, labels = candidates // num_classes, candidates % num_classes
    boxes, scores = boxes[priors], flat[candidates]
    if factors is not None:
        scores = scores * factors[priors, 0]
    if settings['min_box_side'] >= 0:
        sides = (boxes[:, 2:] - boxes[:, :2]) / np.float32(resized_by)
        large = (sides > settings['min_box_side']).all(1)
        boxes, scores, labels = boxes[large], scores[large], labels[large]
    order = np.argsort(-scores, kind='stable')
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    kept = _suppress(boxes, labels, settings['iou_threshold'], settings['max_detections'])
    return boxes[kept], scores[kept], labels[kept].astype(np.int64)


def common_areas(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the areas (n,) that a box (4,) shares with others (n, 4), all (x1, y1, x2, y2)."""
    corner = np.maximum(box[:2], others[:, :2])
    sides = np.clip(np.minimum(box[2:], others[:, 2:]) - corner, 0, None)
    return sides[:, 0] * sides[:, 1]


def _best_of_levels(
    scores: np.ndarray, num_classes: int, settings: Mapping[str, Any]
) -> np.ndarray:
    """Returns the indices of the candidates among all pairs of prior and class."""
    most, start, best = settings['candidates_per_level'], 0, []
    for num_priors in settings['priors_per_level']:
        level = scores[start : start + num_priors * num_classes]
        indices = np.arange(len(level))
        if 0 < most < len(level):
            indices = np.argsort(-level, kind='stable')[:most]
        best.append(indices + start)
        start += len(level)
    return np.concatenate(best)


def _suppress(boxes: np.ndarray, labels: np.ndarray, iou_threshold: float, most: int) -> list[int]:
    """Returns the indices of the boxes to keep. The boxes are sorted by score."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.arange(len(boxes))
    kept: list[int] = []
    while len(left) and len(kept) < most:
        best, others = left[0], left[1:]
        kept.append(int(best))
        common = common_areas(boxes[best], boxes[others])
        union = areas[best] + areas[others] - common
        # Boxes with swapped corners suppress nothing.
        overlaps = (union > 0) & (common > iou_threshold * union)
        overlaps &= labels[others] == labels[best]
        left = others[~overlaps]
    return kept
