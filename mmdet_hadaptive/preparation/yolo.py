"""Reads the text files of YOLO."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ..datasets.findings import find_places
from .annotations import (
    ImageIndex,
    LabeledBox,
    LabeledFolder,
    LabeledImage,
    find_images,
    finite_number,
    split_from_path,
)
from .errors import PreparationError

_CLASS_FILES = ('classes.txt', 'obj.names', 'labels.txt', '_darknet.labels')


def read_yolo(folder: Path, classes: Sequence[str] = ()) -> LabeledFolder:
    """Reads one text file per image, of lines ``class x y width height`` in parts of the image.

    Polygons become the box around them. The names of the classes are those of a YAML file
    with ``names``, or the lines of ``classes.txt``, ``obj.names``, ``labels.txt`` or
    ``_darknet.labels``. An image without a text file is background. The splits are those of the
    YAML file, which names folders or lists of images, or of folders called ``train``, ``val`` and
    the like.

    Args:
        folder: Where the files are, however deep.
        classes: Names of the classes 0, 1, ..., in place of those in the folder.

    Returns:
        All images.

    Raises:
        PreparationError: If the names are not known, or a YAML file is none.
    """
    description = _read_description(folder)
    names = list(classes) or _read_classes(folder, description)
    files = find_images(folder)
    splits, missing = _read_splits(files, description)
    images, wrong, unknown = [], [], []
    for image in files:
        label = yolo_label(image)
        boxes = []
        lines = label.read_text(errors='replace').splitlines() if label.is_file() else []
        for number, line in enumerate(lines, 1):
            values = [finite_number(word) for word in line.split()]
            if not values:
                continue
            box = _read_values(values)
            if box is None:
                wrong.append(f'{label}:{number}')
            elif not box[0] < len(names):
                unknown.append(f'{label}:{number}: class {box[0]}')
            else:
                boxes.append(LabeledBox(names[box[0]], box[1]))
        real = image.resolve()
        named = next((splits[p] for p in (real, *real.parents) if p in splits), None)
        split = named or split_from_path(image, folder)
        images.append(LabeledImage(image, tuple(boxes), split, relative=True))
    if unknown:
        raise PreparationError(
            f'{len(unknown)} lines have a class of which no name is known, first {unknown[0]}; '
            f'known are {names}: name all with --classes, in the order of their numbers'
        )
    return LabeledFolder(
        images,
        names,
        [
            *find_places(
                False,
                'lines are not "class x y width height" or a polygon',
                'They are left out',
                wrong,
            ),
            *find_places(
                False,
                'lines of the lists of images name one that is not there, or several',
                'They are left out',
                missing,
            ),
        ],
    )


def yolo_label(image: Path) -> Path:
    """The text file of an image: beside it, or in ``labels`` where the image is in ``images``."""
    beside = image.with_suffix('.txt')
    parts = list(image.parts)
    if 'images' in parts and not beside.is_file():
        place = len(parts) - 1 - parts[::-1].index('images')
        parts[place] = 'labels'
        return Path(*parts).with_suffix('.txt')
    return beside


def is_yolo(label: Path) -> bool:
    """Whether a text file has a line as YOLO writes them."""
    lines = label.read_text(errors='replace').splitlines()
    return any(_read_values([finite_number(word) for word in line.split()]) for line in lines)


def _read_values(
    values: Sequence[float | None],
) -> tuple[int, tuple[float, float, float, float]] | None:
    """Class and corners of a line; None if it is not as it should be."""
    if len(values) < 5 or None in values or values[0] < 0 or values[0] % 1:
        return None
    # The sixth value is a confidence.
    if len(values) in (5, 6):
        x, y, width, height = values[1:5]
        if width < 0 or height < 0 or max(values[1:5]) > 2:
            return None
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    elif len(values) % 2:
        xs, ys = values[1::2], values[2::2]
        corners = (min(xs), min(ys), max(xs), max(ys))
    else:
        return None
    return int(values[0]), corners


def _read_description(folder: Path) -> dict[str, Any]:
    for path in sorted([*folder.rglob('*.yaml'), *folder.rglob('*.yml')]):
        try:
            content = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise PreparationError(f'{path} is no YAML: {error}'.replace('\n', ' ')) from error
        if isinstance(content, dict) and 'names' in content:
            return content | {'': path}
    return {}


def _read_classes(folder: Path, description: dict[str, Any]) -> list[str]:
    names = description.get('names')
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names)]
    if isinstance(names, list):
        return list(map(str, names))
    for file in _CLASS_FILES:
        for path in folder.rglob(file):
            return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    raise PreparationError(
        f'{folder} does not say what its classes are called, neither in a data.yaml nor in '
        f'{" or ".join(_CLASS_FILES)}: name them with --classes, in the order of their numbers'
    )


def _read_splits(
    images: Sequence[Path], description: dict[str, Any]
) -> tuple[dict[Path, str], list[str]]:
    """The split of folders and of listed images, and the lines of lists that name no image."""
    index = ImageIndex(images)
    splits: dict[Path, str] = {}
    missing = []
    for split in ('train', 'val', 'test'):
        places = description.get(split) or []
        for place in [places] if isinstance(places, str) else places:
            start = description[''].parent / str(description.get('path') or '')
            # Roboflow writes ../train/images for train/images.
            for root in dict.fromkeys((start / place, start / place.removeprefix('../'))):
                if not root.is_file():
                    splits.setdefault(root.resolve(), split)
                    continue
                lines = root.read_text(errors='replace').splitlines()
                for name in filter(None, map(str.strip, lines)):
                    image = index.find(root, name.removeprefix('./'))
                    if image is None:
                        missing.append(f'{root}: {name}')
                    else:
                        splits.setdefault(image.resolve(), split)
    return splits, missing
