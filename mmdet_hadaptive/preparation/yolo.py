"""Reads the text files of YOLO."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ..datasets.findings import Finding, find_places
from .annotations import (
    ImageIndex,
    LabeledBox,
    LabeledFolder,
    LabeledImage,
    find_files,
    find_images,
    finite_number,
    read_text,
    split_from_path,
)
from .errors import PreparationError

_CLASS_FILES = ('classes.txt', 'obj.names', 'labels.txt', '_darknet.labels')
# What polygons reach to, in parts of the image; flags of keypoints are 2.
_FARTHEST = 1.5


def read_yolo(folder: Path, classes: Sequence[str] = ()) -> LabeledFolder:
    """Reads one text file per image, of lines ``class x y width height`` in parts of the image.

    Polygons become the box around them, and keypoints, which the YAML file names by
    ``kpt_shape``, are passed over. The names of the classes are those of a YAML file
    with ``names``, or the lines of ``classes.txt``, ``obj.names``, ``labels.txt`` or
    ``_darknet.labels``. An image without a text file has no boxes. The splits are those of the
    YAML file, which names folders or lists of images, or of folders called ``train``, ``val`` and
    the like.

    Args:
        folder: Where the files are, however deep.
        classes: Names of the classes 0, 1, ..., in place of those in the folder.

    Returns:
        All images.

    Raises:
        PreparationError: If the names or the numbers of the classes are not known, or a YAML file
            is none.
    """
    descriptions = _read_descriptions(folder)
    description = descriptions[0] if descriptions else {}
    names = list(classes) or _read_classes(folder, descriptions)
    files = find_images(folder)
    splits, findings = _read_splits(files, folder, description)
    images, wrong, unknown, bare = [], [], [], []
    labels = set()
    for image in files:
        label = yolo_label(image)
        boxes = []
        if label.is_file():
            labels.add(label.resolve())
        else:
            bare.append(str(image))
        for number, line in enumerate(_read_lines(label) if label.is_file() else [], 1):
            values = [finite_number(word) for word in line.split()]
            if not values:
                continue
            box = _read_values(values[:5] if 'kpt_shape' in description else values)
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
    texts = [path for path in find_files(folder) if path.suffix == '.txt']
    alone = [str(path) for path in texts if path.resolve() not in labels and is_yolo(path)]
    findings += [
        *find_places(
            False,
            'lines are not "class x y width height" or a polygon',
            'They are left out',
            wrong,
        ),
        *find_places(False, 'text files have no image', 'They are left out', alone),
        *find_places(False, 'images have no text file', 'They have no boxes', bare),
    ]
    return LabeledFolder(images, names, findings)


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
    return any(
        _read_values([finite_number(word) for word in line.split()]) for line in _read_lines(label)
    )


def _read_lines(path: Path) -> list[str]:
    return path.read_text(encoding='utf-8-sig', errors='replace').splitlines()


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
    elif len(values) % 2 and max(values[1:]) <= _FARTHEST:
        xs, ys = values[1::2], values[2::2]
        corners = (min(xs), min(ys), max(xs), max(ys))
    else:
        return None
    return int(values[0]), corners


def _read_descriptions(folder: Path) -> list[dict[str, Any]]:
    """What YAML files with class names say, by path; their own path has the key ''."""
    found = []
    for path in find_files(folder):
        if path.suffix not in ('.yaml', '.yml'):
            continue
        text = read_text(path)
        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise PreparationError(f'{path} is no YAML: {error}'.replace('\n', ' ')) from error
        if isinstance(content, dict) and isinstance(content.get('names'), (list, dict)):
            found.append(content | {'': path})
    return found


def _read_classes(folder: Path, descriptions: Sequence[dict[str, Any]]) -> list[str]:
    lists = {content['']: _named_classes(content) for content in descriptions}
    if lists:
        return _longest(lists)
    files = find_files(folder)
    for name in _CLASS_FILES:
        lists = {
            path: [line.strip() for line in read_text(path).splitlines() if line.strip()]
            for path in files
            if path.name == name
        }
        if lists:
            return _longest(lists)
    raise PreparationError(
        f'{folder} does not say what its classes are called, neither in a data.yaml nor in '
        f'{" or ".join(_CLASS_FILES)}: name them with --classes, in the order of their numbers'
    )


def _named_classes(description: dict[str, Any]) -> list[str]:
    names, file = description['names'], description['']
    if isinstance(names, dict):
        by_number = {str(number): name for number, name in names.items()}
        if by_number.keys() != set(map(str, range(len(by_number)))):
            raise PreparationError(
                f'{file} gives its classes the numbers {", ".join(by_number)}: number classes and '
                'labels 0, 1, ...'
            )
        names = [by_number[str(number)] for number in range(len(by_number))]
    unquoted = [name for name in names if isinstance(name, bool) or name is None]
    if unquoted:
        raise PreparationError(
            f'{file} has a class {unquoted[0]}, as YAML reads yes, no and null: put names into '
            'quotes'
        )
    return list(map(str, names))


def _longest(lists: dict[Path, list[str]]) -> list[str]:
    """The list of classes that the others are the beginnings of."""
    longest = max(lists, key=lambda path: len(lists[path]))
    for path, names in lists.items():
        if names != lists[longest][: len(names)]:
            raise PreparationError(
                f'{path} and {longest} do not list the same classes: renumber the labels so that '
                'one list holds for all, and name it with --classes'
            )
    return lists[longest]


def _read_splits(
    images: Sequence[Path], folder: Path, description: dict[str, Any]
) -> tuple[dict[Path, str], list[Finding]]:
    """The split of folders and of listed images, and what of it is not there."""
    index = ImageIndex(images, folder)
    splits: dict[Path, str] = {}
    missing, nowhere = [], []
    for split in ('train', 'val', 'test'):
        places = description.get(split) or []
        for place in [places] if isinstance(places, str) else map(str, places):
            beside = description[''].parent
            starts = (beside / str(description.get('path') or ''), beside)
            # Roboflow writes ../train/images for train/images.
            named = [s / p for s in starts for p in (place, place.removeprefix('../'))]
            roots = {root.resolve(): root for root in named if root.exists()}
            if not roots:
                nowhere.append(f'{description[""]}: {split}: {place}')
            for real, root in roots.items():
                if root.is_dir():
                    splits.setdefault(real, split)
                    continue
                for name in filter(None, map(str.strip, _read_lines(root))):
                    image = index.find(root, name.removeprefix('./'))
                    if image is None:
                        missing.append(f'{root}: {name}')
                    else:
                        splits.setdefault(image.resolve(), split)
    return splits, [
        *find_places(
            False,
            'lines of the lists of images name one that is not there, or several',
            'They are left out',
            missing,
        ),
        *find_places(
            False,
            'folders or lists of images that the YAML file names are not there',
            'The names of the folders say what is which',
            nowhere,
        ),
    ]
