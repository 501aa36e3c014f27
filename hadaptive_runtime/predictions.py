"""Detections in the formats of labelling tools and evaluators."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from .detections import Detections


class Prediction(NamedTuple):
    """The objects in an image, or in a frame of a video.

    Attributes:
        name: The file, relative to the folder that was predicted, with slashes.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        found: The objects, in pixels of the image.
        frame: The number of the frame, from 0. None for an image.
        seconds: The time of the frame. None for an image.
    """

    name: str
    width: int
    height: int
    found: Detections
    frame: int | None = None
    seconds: float | None = None


def to_coco(predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, Any]:
    """Makes a COCO file with images, categories and annotations, as labelling tools import it.

    Ids of images, categories and annotations begin with 1. Each annotation has a ``score``.
    """
    images, annotations = [], []
    for number, prediction in enumerate(predictions, 1):
        images.append(
            dict(
                id=number,
                file_name=prediction.name,
                width=prediction.width,
                height=prediction.height,
            )
        )
        found = prediction.found
        for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
            x1, y1, x2, y2 = (round(float(value), 2) for value in box)
            width, height = round(x2 - x1, 2), round(y2 - y1, 2)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=int(label) + 1,
                    bbox=[x1, y1, width, height],
                    area=round(width * height, 2),
                    iscrowd=0,
                    segmentation=[],
                    score=round(float(score), 4),
                )
            )
    categories = [dict(id=number, name=name) for number, name in enumerate(classes, 1)]
    return dict(images=images, categories=categories, annotations=annotations)


def _to_coco_results(predictions: Sequence[Prediction], classes: Sequence[str]) -> str:
    keys = ('image_id', 'category_id', 'bbox', 'score')
    annotations = to_coco(predictions, classes)['annotations']
    return json.dumps([{key: entry[key] for key in keys} for entry in annotations]) + '\n'


def _to_csv(predictions: Sequence[Prediction], classes: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(('file', 'frame', 'seconds', 'class', 'score', 'x1', 'y1', 'x2', 'y2'))
    for name, _, _, found, frame, seconds in predictions:
        time = None if seconds is None else f'{seconds:.3f}'
        for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
            corners = [f'{value:.2f}' for value in box]
            writer.writerow((name, frame, time, classes[label], f'{score:.4f}', *corners))
    return text.getvalue()


def _to_yolo(prediction: Prediction) -> str:
    found, size = prediction.found, [prediction.width, prediction.height]
    lines = []
    for box, label in zip(found.boxes, found.labels, strict=True):
        centre = (box[:2] + box[2:]) / 2 / size
        numbers = ' '.join(f'{value:.6f}' for value in (*centre, *((box[2:] - box[:2]) / size)))
        lines.append(f'{label} {numbers}\n')
    return ''.join(lines)


def yolo_name(image: str) -> str:
    """Returns the path of an image's text file, relative to the folder of the results."""
    return str(PurePosixPath('labels') / PurePosixPath(image).with_suffix('.txt'))


def _yolo_files(predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, str]:
    files = {yolo_name(prediction.name): _to_yolo(prediction) for prediction in predictions}
    # Each JSON text is also YAML, with any characters in the names.
    names = json.dumps(list(classes), ensure_ascii=False)
    return {
        'data.yaml': f'names: {names}\n',
        'classes.txt': ''.join(f'{name}\n' for name in classes),
        **files,
    }


# For each format the function that makes its files from predictions and classes.
TABLES = {
    'coco': lambda *found: {'coco.json': json.dumps(to_coco(*found)) + '\n'},
    'coco-results': lambda *found: {'coco_results.json': _to_coco_results(*found)},
    'yolo': _yolo_files,
    'csv': lambda *found: {'detections.csv': _to_csv(*found)},
}
# These formats cannot hold frames of videos.
OF_IMAGES = ('coco', 'coco-results', 'yolo')


def make_tables(
    formats: Sequence[str], predictions: Sequence[Prediction], classes: Sequence[str]
) -> Mapping[str, bytes]:
    """Makes the files of some formats.

    Args:
        formats: Some of :data:`TABLES`.
        predictions: The predictions.
        classes: The names of all classes.

    Returns:
        The content of each file, by its path relative to the folder of the results.
    """
    files = {}
    for name in formats:
        files |= TABLES[name](predictions, classes)
    # A file's name may not be valid UTF-8.
    return {path: text.encode(errors='surrogateescape') for path, text in files.items()}
