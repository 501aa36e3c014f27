"""Compares the time of COCO metrics."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import METRICS


def draw_detections(annotation_file: Path, per_image: int, seed: int) -> list[dict[str, Any]]:
    """Makes up detections: around the annotated boxes, and elsewhere.

    Args:
        annotation_file: Annotations in COCO's format.
        per_image: Detections for each image, half of them around its boxes if it has any.
        seed: What the random numbers follow from.

    Returns:
        For each image what ``CocoMetric`` computes from: ``img_id``, ``bboxes``, ``scores`` and
        ``labels``.
    """
    rng = np.random.default_rng(seed)
    coco = json.loads(annotation_file.read_text())
    labels = {category['id']: label for label, category in enumerate(coco['categories'])}
    truth: dict[int, list[list[float]]] = {image['id']: [] for image in coco['images']}
    for item in coco['annotations']:
        truth[item['image_id']].append([*item['bbox'], labels[item['category_id']]])
    results = []
    for image in coco['images']:
        size = np.array([image['width'], image['height']])
        corners = rng.uniform(0, 0.8, (per_image, 2)) * size
        found = np.hstack([corners, rng.uniform(0.02, 0.5, (per_image, 2)) * size])
        classes = rng.integers(0, len(labels), per_image)
        scores = rng.uniform(0, 0.5, per_image)
        if truth[image['id']]:
            boxes = np.array(truth[image['id']])
            near = boxes[rng.integers(0, len(boxes), per_image // 2)]
            found[: len(near)] = near[:, :4] * rng.normal(1, 0.1, (len(near), 4))
            classes[: len(near)] = near[:, 4]
            scores[: len(near)] *= 2
        found[:, 2:] += found[:, :2]
        results.append(
            dict(
                img_id=image['id'],
                bboxes=found.astype(np.float32),
                scores=scores.astype(np.float32),
                labels=classes,
            )
        )
    return results


def time_metrics(
    types: list[str], annotation_file: Path, detections: list[dict[str, Any]]
) -> dict[str, tuple[float, dict[str, float]]]:
    """Times metrics on the same detections.

    Args:
        types: Names of registered metrics with the arguments of ``CocoMetric``.
        annotation_file: Annotations in COCO's format.
        detections: What :func:`draw_detections` returned.

    Returns:
        For each the processor's seconds for computing it, with reading the annotations, and what
        it computed.
    """
    classes = [item['name'] for item in json.loads(annotation_file.read_text())['categories']]
    found = {}
    for name in types:
        start = time.process_time()
        metric = METRICS.build(dict(type=name, ann_file=str(annotation_file), _scope_='mmdet'))
        metric.dataset_meta = dict(classes=classes)
        values = metric.compute_metrics([({}, detection) for detection in detections])
        found[name] = (time.process_time() - start, values)
    return found
