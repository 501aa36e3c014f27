"""The embedded data set: coloured shapes over textured backgrounds, in COCO's format.

Everything is drawn from a seed, by integer arithmetic and the four basic operations of IEEE
floating point. There is no sine and no library rasteriser, so every machine gets the same pixels.
"""

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.progress import track

SHAPE_CLASSES = ('disk', 'ring', 'triangle', 'cross')
_IMAGE_SIZE = 256
_MAX_OBJECTS = 10
_MIN_RADIUS = 16
_MAX_RADIUS = 80
# An object is annotated if at least this part of it is visible.
_MIN_VISIBLE = 0.7


def draw_shapes(seed: int, split: str, index: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Draws one image.

    It has up to ten objects of the four :data:`SHAPE_CLASSES`. They have sizes of 32 to 160 pixels,
    are rotated and stretched, and may overlap each other and leave the image. Boxes are tight
    around the drawn pixels inside the image.

    Args:
        seed: The seed of the data set, at least 0.
        split: 'train' or 'val'. They have different images for the same index.
        index: The number of the image, at least 0.

    Returns:
        The image, shape (256, 256, 3), uint8, BGR. And for each object ``label`` (index into
        ``SHAPE_CLASSES``), ``bbox`` ([x, y, width, height] in pixels) and ``area`` (pixels).

    Raises:
        ValueError: If ``split`` has another value.
    """
    if split not in ('train', 'val'):
        raise ValueError(f"split must be 'train' or 'val', got {split!r}")
    rng = np.random.default_rng([seed, ('train', 'val').index(split), index])
    image = _texture(rng, rng.integers(30, 226, 3), contrast=90)
    # For each pixel the number of the visible object. 0 is the background.
    owner = np.zeros(image.shape[:2], dtype=np.int64)
    objects: list[dict[str, Any]] = []
    for _ in range(rng.integers(3, _MAX_OBJECTS + 1)):
        label = int(rng.integers(len(SHAPE_CLASSES)))
        mask = _shape_mask(rng, SHAPE_CLASSES[label])
        # Always drawn, so that the stream of random numbers stays the same.
        colour = _contrasting(rng, image[mask])
        fill = _texture(rng, colour, contrast=40)
        area = int(mask.sum())
        covered = np.where(mask, len(objects) + 1, owner)
        visible = np.bincount(covered.ravel(), minlength=len(objects) + 2)[1:-1]
        hidden = any(v < _MIN_VISIBLE * o['area'] for v, o in zip(visible, objects, strict=True))
        if area < _MIN_RADIUS**2 or hidden:
            continue
        owner = covered
        image[mask] = fill[mask]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y = int(columns[0]), int(rows[0])
        bbox = [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
        objects.append(dict(label=label, bbox=bbox, area=area))
    return image, objects


def make_shapes(root: str | Path, num_train: int, num_val: int, seed: int = 0) -> Path:
    """Writes the data set in COCO's layout, unless it is there already.

    ``root`` gets ``train/``, ``val/`` and ``annotations/instances_{train,val}.json``. The data set
    is written to a temporary folder beside it, and moved when it is complete.

    Args:
        root: Folder of the data set.
        num_train: Number of training images.
        num_val: Number of validation images.
        seed: The seed, at least 0.

    Returns:
        ``root`` as a path.

    Raises:
        FileExistsError: If ``root`` holds anything other than this data set.
        ValueError: If a number of images is below 1, or if the seed is negative.
    """
    for name, value, least in (
        ('num_train', num_train, 1),
        ('num_val', num_val, 1),
        ('seed', seed, 0),
    ):
        if value < least:
            raise ValueError(f'{name} must be at least {least}, got {value}')
    root = Path(root)
    description = dict(
        description='mmdet_hadaptive shapes', seed=seed, num_train=num_train, num_val=num_val
    )
    if root.exists():
        if _is_drawn(root, description):
            return root
        raise FileExistsError(
            f'{root} exists and is not the shapes data set with {description}: remove it or '
            'choose another folder'
        )
    # Several processes may draw the same data set at once. The first result is used.
    partial = root.with_name(f'{root.name}.{uuid.uuid4().hex}.partial')
    try:
        (partial / 'annotations').mkdir(parents=True)
        for split, count in (('train', num_train), ('val', num_val)):
            _write_split(partial, split, count, seed, description)
        try:
            partial.rename(root)
        except OSError:
            if not _is_drawn(root, description):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return root


def _is_drawn(root: Path, description: dict[str, Any]) -> bool:
    marker = root / 'annotations' / 'instances_val.json'
    return marker.is_file() and json.loads(marker.read_text()).get('info') == description


def _write_split(
    root: Path, split: str, count: int, seed: int, description: dict[str, Any]
) -> None:
    (root / split).mkdir()
    images, annotations = [], []
    for index in track(range(count), f'drawing {split} images', transient=True):
        image, objects = draw_shapes(seed, split, index)
        name = f'{index:06d}.png'
        cv2.imwrite(str(root / split / name), image)
        images.append(
            dict(id=index + 1, file_name=name, height=image.shape[0], width=image.shape[1])
        )
        for item in objects:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index + 1,
                    category_id=item['label'] + 1,
                    bbox=item['bbox'],
                    area=item['area'],
                    iscrowd=0,
                )
            )
    coco = dict(
        info=description,
        images=images,
        annotations=annotations,
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(SHAPE_CLASSES)],
    )
    (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(coco))


def _texture(rng: np.random.Generator, colour: np.ndarray, contrast: int) -> np.ndarray:
    """Returns the colour with smooth noise of two scales, shape (256, 256, 3), uint8."""
    noise = sum(
        _smooth_noise(rng, cell, contrast * weight // 4) for cell, weight in ((64, 3), (8, 1))
    )
    tint = rng.integers(2, 5, 3)
    image = np.clip(colour + noise[:, :, None] * tint // 4, 0, 255)
    return np.ascontiguousarray(image, dtype=np.uint8)


def _smooth_noise(rng: np.random.Generator, cell: int, amplitude: int) -> np.ndarray:
    """Returns random values on a grid, interpolated linearly, shape (256, 256)."""
    side_length = _IMAGE_SIZE // cell + 1
    grid = rng.integers(-amplitude, amplitude + 1, (side_length, side_length))
    fraction = np.arange(cell)
    for _ in range(2):
        before, after = grid[:-1, None], grid[1:, None]
        grid = (before * (cell - fraction)[:, None] + after * fraction[:, None]) // cell
        grid = grid.reshape(_IMAGE_SIZE, -1).T
    return grid


def _contrasting(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Returns a colour that differs from the pixels' mean by at least 90 in one channel."""
    candidates = rng.integers(20, 236, (16, 3))
    if not len(pixels):
        return candidates[0]
    mean = pixels.astype(np.int64).sum(0) // len(pixels)
    distance = np.abs(candidates - mean).max(1)
    return candidates[int(np.argmax(distance >= 90))]


def _shape_mask(rng: np.random.Generator, shape: str) -> np.ndarray:
    """Returns the pixels of a randomly placed shape, shape (256, 256), bool."""
    # The square of a uniform number makes small objects more frequent, as in photographs.
    u = rng.random()
    radius = _MIN_RADIUS + (_MAX_RADIUS - _MIN_RADIUS) * u * u
    # Near an edge, a part of the object is outside of the image.
    centre = (0.05 + 0.9 * rng.random(2)) * _IMAGE_SIZE
    stretch = 1 + 0.5 * rng.random()
    # A rational parametrisation of the circle, because sine and cosine differ between machines.
    t = 2 * rng.random() - 1
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    y, x = np.mgrid[:_IMAGE_SIZE, :_IMAGE_SIZE] + 0.5
    x, y = (x - centre[0]) / radius, (y - centre[1]) / radius
    x, y = cosine * x + sine * y, (cosine * y - sine * x) * stretch
    if shape == 'disk':
        return x * x + y * y <= 1
    if shape == 'ring':
        r2 = x * x + y * y
        return (r2 <= 1) & (r2 >= 0.3)
    if shape == 'triangle':
        return (y <= 0.6) & (y >= 2 * np.abs(x) - 1.1)
    return (np.minimum(np.abs(x), np.abs(y)) <= 0.28) & (np.maximum(np.abs(x), np.abs(y)) <= 0.95)
