"""Converts annotated images to COCO's annotations."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..datasets.check import key_box
from ..datasets.findings import Finding, note
from .annotations import LabeledImage
from .splitting import ImageFile


def to_coco(
    images: Sequence[LabeledImage], files: Sequence[ImageFile], classes: Sequence[str], folder: Path
) -> tuple[dict[str, Any], list[Finding]]:
    """Converts annotated images to COCO's format, with boxes that a detector can learn.

    Args:
        images: The images of a split.
        files: Their files with their sizes.
        classes: Names, in the order of the labels.
        folder: The folder that the names of files are relative to.

    Returns:
        The content of an annotation file, and findings about boxes that were changed or left out.
    """
    labels = {name: index for index, name in enumerate(classes, 1)}
    coco: dict[str, Any] = dict(
        images=[],
        annotations=[],
        categories=[dict(id=index, name=name) for name, index in labels.items()],
    )
    swapped, empty, clipped, repeated = [], [], [], []
    for image_id, (image, file) in enumerate(zip(images, files, strict=True), 1):
        width, height = file.size
        coco['images'].append(
            dict(
                id=image_id,
                file_name=os.path.relpath(image.path, folder),
                width=width,
                height=height,
            )
        )
        scale = (width, height) if image.relative else (1, 1)
        seen: set[tuple[Any, ...]] = set()
        for box in image.boxes:
            corners = [value * scale[i % 2] for i, value in enumerate(box.corners)]
            place = f'{image.path}: {box.name} {[round(value, 1) for value in corners]}'
            ordered = [
                *map(min, corners[:2], corners[2:]),
                *map(max, corners[:2], corners[2:]),
            ]
            if ordered != corners:
                swapped.append(place)
            x1, y1, x2, y2 = (
                min(max(value, 0), file.size[i % 2]) for i, value in enumerate(ordered)
            )
            bbox = [x1, y1, x2 - x1, y2 - y1]
            if min(bbox[2:]) < 1:
                empty.append(place)
                continue
            key = (box.name, *key_box(bbox))
            if key in seen:
                repeated.append(place)
                continue
            seen.add(key)
            # Small excesses come from the rounding of relative corners.
            if max(abs(a - b) for a, b in zip(ordered, (x1, y1, x2, y2), strict=True)) > 1:
                clipped.append(place)
            coco['annotations'].append(
                dict(
                    id=len(coco['annotations']) + 1,
                    image_id=image_id,
                    category_id=labels[box.name],
                    bbox=bbox,
                    area=bbox[2] * bbox[3],
                    iscrowd=int(box.ignored),
                )
            )
    return coco, [
        *note(
            'boxes have xmin > xmax, ymin > ymax, or a negative size',
            'Their corners are swapped',
            swapped,
        ),
        *note('boxes have less than one pixel inside their image', 'They are left out', empty),
        *note(
            'boxes are there more than once, with the same class', 'One of each is kept', repeated
        ),
        *note(
            'boxes reach beyond their image',
            'They are clipped; if it is most of the boxes, their numbers may mean something else, '
            'say corners in place of width and height'
            if len(clipped) > len(coco['annotations']) / 2
            else 'They are clipped',
            clipped,
        ),
    ]
