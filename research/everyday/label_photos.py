"""Lets YOLOv3-tiny label photos of public git repositories, as a data set in COCO's format.

Boxes of a high score are objects. Doubtful boxes become crowds, which a training ignores, unless
they overlap with an object. Photos without an object are left out. It also measures YOLOv3-tiny on
images of COCO.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.datasets import CocoDataset
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.progress import track

from mmdet_hadaptive.utils.files import write_whole
from research.distillation.pack_photos import SOURCES, photos

from .yolov3_tiny import SIZE, YOLOv3Tiny, detect

CLASSES = CocoDataset.METAINFO['classes']
# Photos of these have 224 pixels and more, those of miniplaces 128.
_MOST = {'flickr8k': None, 'grocery': 1500, 'imagenette': 4000, 'miniplaces': 14_000}
HIGH, LOW = 0.4, 0.1
# The part of the smaller of two boxes.
_OVERLAP = 0.3


class Detector:
    """YOLOv3-tiny in OpenVINO.

    Args:
        weights: ``yolov3-tiny.weights``.
    """

    def __init__(self, weights: Path) -> None:
        import openvino as ov

        example = torch.zeros(1, 3, SIZE, SIZE)
        model = ov.convert_model(YOLOv3Tiny(weights), example_input=example, input=example.shape)
        options = {'INFERENCE_NUM_THREADS': 1, 'INFERENCE_PRECISION_HINT': 'bf16'}
        self.model = ov.Core().compile_model(model, 'CPU', options)

    def __call__(self, image: np.ndarray, low: float) -> list[tuple[list[float], float, int]]:
        """Finds objects in an image (H, W, 3), uint8, BGR: box as x, y, w, h, score, class."""
        resized = cv2.resize(image, (SIZE, SIZE))[..., ::-1].transpose(2, 0, 1)
        outputs = self.model(resized[None].astype(np.float32) / 255).values()
        boxes, scores = (torch.from_numpy(value[0].copy()) for value in outputs)
        corners, scores, classes = detect(boxes, scores, low, *image.shape[:2])
        corners[:, 2:] -= corners[:, :2]
        rounded = [[round(value, 1) for value in box] for box in corners.tolist()]
        return list(zip(rounded, scores.tolist(), classes.tolist(), strict=True))


def main() -> None:
    """Writes OUT/SOURCE/NUMBER.jpg, OUT/labels.json and OUT/coco.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('mirrors', type=Path, help='folder with NAME/repo, bare git repositories')
    parser.add_argument('weights', type=Path, help='yolov3-tiny.weights')
    parser.add_argument('coco', type=Path, help='images of COCO to measure with')
    parser.add_argument('out', type=Path)
    args = parser.parse_args()
    detector = Detector(args.weights)
    args.out.mkdir(parents=True, exist_ok=True)
    truth = merge(args.coco)
    write_whole(json.dumps(truth), args.out / 'coco.json')
    print(measure(detector, truth, args.coco))
    images, annotations, counts = [], [], Counter()
    for source, most in _MOST.items():
        repository, commit, folder = SOURCES[source]
        (args.out / source).mkdir(exist_ok=True)
        repo = args.mirrors / repository / 'repo'
        for _, data in track(photos(repo, commit, folder, most), source):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            found = [] if image is None else without_doubles(detector(image, LOW))
            if not any(score > HIGH for _, score, _ in found):
                continue
            number = len(images) + 1
            file = f'{source}/{number}.jpg'
            (args.out / file).write_bytes(data)
            height, width = image.shape[:2]
            images.append(dict(id=number, file_name=file, height=height, width=width))
            for box, score, label in found:
                counts[CLASSES[label]] += score > HIGH
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=number,
                        category_id=label + 1,
                        bbox=box,
                        area=box[2] * box[3],
                        iscrowd=int(score <= HIGH),
                    )
                )
    categories = [dict(id=index, name=name) for index, name in enumerate(CLASSES, 1)]
    labels = dict(images=images, annotations=annotations, categories=categories)
    write_whole(json.dumps(labels), args.out / 'labels.json')
    print(f'{len(images)} photos, {sum(counts.values())} objects: {dict(counts.most_common())}')


def without_doubles(
    found: list[tuple[list[float], float, int]],
) -> list[tuple[list[float], float, int]]:
    """Leaves out doubtful boxes that overlap with an object: its anchors would not be trained.

    Args:
        found: Box as x, y, width and height, score, class.

    Returns:
        Those that are left.
    """
    objects = [box for box, score, _ in found if score > HIGH]
    return [
        (box, score, label)
        for box, score, label in found
        if score > HIGH or all(_overlap(box, other) < _OVERLAP for other in objects)
    ]


def _overlap(box: list[float], other: list[float]) -> float:
    sides = [
        max(0.0, min(box[i] + box[i + 2], other[i] + other[i + 2]) - max(box[i], other[i]))
        for i in (0, 1)
    ]
    return sides[0] * sides[1] / max(min(box[2] * box[3], other[2] * other[3]), 1e-9)


def merge(folder: Path) -> dict[str, Any]:
    """Puts training and validation images of a small COCO into one data set."""
    merged: dict[str, Any] = dict(images=[], annotations=[])
    for split in ('train2017', 'val2017'):
        part = json.loads((folder / f'annotations/instances_{split}.json').read_text())
        merged['categories'] = part['categories']
        merged['annotations'] += part['annotations']
        merged['images'] += [
            dict(image, file_name=f'{split}/{image["file_name"]}') for image in part['images']
        ]
    for index, annotation in enumerate(merged['annotations'], 1):
        annotation['id'] = index
    return merged


def measure(detector: Detector, truth: dict[str, Any], folder: Path) -> dict[str, float]:
    """Measures mAP and mAP50 of a detector on images of COCO."""
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    names = {category['name']: category['id'] for category in truth['categories']}
    results = [
        dict(image_id=image['id'], category_id=names[CLASSES[label]], bbox=box, score=score)
        for image in truth['images']
        for box, score, label in detector(cv2.imread(str(folder / image['file_name'])), 0.001)
        if CLASSES[label] in names
    ]
    evaluation = COCOeval(coco, coco.loadRes(results), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return dict(mAP=round(evaluation.stats[0], 3), mAP50=round(evaluation.stats[1], 3))


if __name__ == '__main__':
    main()
