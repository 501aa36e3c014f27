"""Reads the text files of YOLO."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ..datasets.findings import note
from .annotations import (
    IN_ANOTHER_FOLDER,
    LabeledBox,
    LabeledFolder,
    LabeledImage,
    PreparationError,
    finite_number,
    order_classes,
)
from .source import SourceFolder, read_text, split_from_words
from .split_lists import Splits, find_lists

_CLASS_FILES = ('classes.txt', 'obj.names', 'labels.txt', '_darknet.labels')
# Corners of polygons are at most this large, in parts of the image. Flags of keypoints are 2.
_FARTHEST = 1.5


@dataclass
class _Description:
    """A data set's description in a YAML file, or in Darknet's ``obj.data``."""

    path: Path
    names: list | dict | None = None
    count: object = None
    places: dict[str, list[str]] = field(default_factory=dict)
    base: str = ''
    has_keypoints: bool = False


def read_yolo(source: SourceFolder, classes: Sequence[str] = ()) -> LabeledFolder:
    """Reads one text file per image, with lines ``class x y width height`` in parts of the image.

    Polygons become the box around them. Keypoints, if the YAML file has ``kpt_shape``, are skipped.
    The names of the classes come from ``names`` in a YAML file, or from the lines of
    ``classes.txt``, ``labels.txt``, ``_darknet.labels`` or a file with the suffix ``.names``. An
    image without a text file has no boxes. The splits come from the YAML file or ``obj.data``,
    which name folders or lists of images, or from lists and folders with the name of a split.

    Args:
        source: The folder.
        classes: The names of the classes 0, 1, ... They replace those in the folder.

    Returns:
        All images, without masks that have the name of a photo.

    Raises:
        PreparationError: If the names or the numbers of the classes are unknown.
    """
    descriptions, not_read = _read_descriptions(source)
    names = list(classes) or _read_classes(source, descriptions, not_read)
    renamed = _find_renamed(source, descriptions, names) if classes else []
    names, alike = order_classes(names, ())
    described = next((item for item in descriptions if item.places), None)
    splits = (
        Splits(source, described.places, described.path, described.base)
        if described
        else Splits(source)
    )
    has_keypoints = _has_keypoints(descriptions)
    labels, alone = _pair(source, has_keypoints)
    masks = _find_masks(source, labels)
    images, wrong, unknown, bare, lost, elsewhere = [], [], [], [], [], []
    known = sorted({*source.images, *labels} - masks)
    for image, label in ((path, label) for path in known for label in labels.get(path, [None])):
        boxes, reasons = [], []
        if label is None:
            bare.append(str(image))
        elif source.is_elsewhere(label.relative_to(source.root), image, 2):
            elsewhere.append(f'{image}: {label}')
        for number, line in _read_lines(label) if label else ():
            try:
                box = _parse_line(line, has_keypoints, names)
            except ValueError as error:
                reasons.append(f'{label}:{number}: {error}')
                continue
            if box[0] < len(names):
                boxes.append(LabeledBox(names[box[0]], box[1]))
            else:
                unknown.append(f'{label}:{number}: class {box[0]}')
        wrong += reasons
        if reasons and not boxes:
            lost.append(str(image))
            continue
        split = splits.find(image)
        images.append(LabeledImage(image, tuple(boxes), label, split, relative=True))
    if unknown:
        raise PreparationError(
            f'{len(unknown)} lines have a class of which no name is known, first {unknown[0]}; '
            f'known are {names}: name all with --classes, in the order of their numbers'
        )
    findings = [
        *alike,
        *note(
            'numbers of classes have other names in the folder',
            'The names of --classes are used',
            renamed,
        ),
        *note('YAML files do not describe a data set', 'They are passed over', not_read),
        *splits.findings,
        *note('lines are not "class x y width height" or a polygon', 'They are left out', wrong),
        *note('images have no line that can be read', 'They are left out', lost),
        *note('text files have no image, or several of that name', 'They are left out', alone),
        *note(*IN_ANOTHER_FOLDER, elsewhere),
        *note(
            'images have no text file, and the name of one that has',
            'They are left out, as masks and copies are',
            map(str, sorted(masks)),
        ),
        *note('images have no text file', 'They have no boxes', bare),
    ]
    return LabeledFolder(images, names, findings, splits.lost_lists)


def refuse_yolo(source: SourceFolder) -> str | None:
    """Explains why the text files of a folder are not in YOLO's format.

    Returns:
        The first wrong line in an image's text file and the reason. An empty text if a line is
        right. None if no text file belongs to an image.
    """
    has_keypoints = _has_keypoints(_read_descriptions(source)[0])
    labels = [label for found in _pair(source, has_keypoints)[0].values() for label in found]
    reason = f'all {len(labels)} text files of images are empty' if labels else None
    is_first = True
    for label in labels:
        for number, line in _read_lines(label):
            try:
                _parse_line(line, has_keypoints, ())
            except ValueError as error:
                reason = f'{label}:{number}: {error}' if is_first else reason
                is_first = False
            else:
                return ''
    return reason


def _pair(source: SourceFolder, has_keypoints: bool) -> tuple[dict[Path, list[Path]], list[str]]:
    """Returns the text files of each image, and text files in YOLO's format without an image.

    An image has several text files if their names and places fit it equally well.
    """
    lists = {path for path, _ in find_lists(source)}
    images: dict[Path, Path | None] = {}
    for path in source.with_suffix('.txt'):
        if path in lists or path.name.lower() in _CLASS_FILES:
            continue
        image = source.find_beside(path) or source.find(path)
        if image is not None and not source.are_apart(path, image):
            images[path] = image
        elif any(_is_yolo(line, has_keypoints) for _, line in _read_lines(path)):
            images[path] = None
    places = {path: path.relative_to(source.root) for path in images}
    found: dict[Path, list[Path]] = defaultdict(list)
    alone = []
    for path, image in zip(
        images,
        source.drop_strangers([(places[path], image) for path, image in images.items()]),
        strict=True,
    ):
        if image is not None:
            found[image].append(path)
        else:
            unread = None if images[path] else source.find_unread(path.stem)
            alone.append(f'{path}: {unread.name} cannot be read' if unread else str(path))
    labels = {}
    for image, paths in found.items():
        ranks = {
            path: (
                path.stem.casefold() == image.stem.casefold(),
                *source.nearness(places[path], image),
                'labels' in path.parts,
            )
            for path in paths
        }
        best = max(ranks.values())
        labels[image] = [path for path in paths if ranks[path] == best]
        alone += [str(path) for path in paths if ranks[path] != best]
    return labels, alone


def _find_masks(source: SourceFolder, labels: dict[Path, list[Path]]) -> set[Path]:
    """Returns images without a text file that share the name of an image with one.

    In a folder with text files, such an image has no objects, unless the other one is beside it.
    """
    folders = {image.parent for image in labels}
    twins: dict[str, list[Path]] = defaultdict(list)
    for image in labels:
        twins[image.stem].append(image)
    return {
        image
        for image in source.images
        if image not in labels
        and any(
            image.parent == twin.parent
            or (image.parent not in folders and not source.are_apart(image, twin))
            for twin in twins[image.stem]
        )
    }


def _is_yolo(line: str, has_keypoints: bool) -> bool:
    try:
        _parse_line(line, has_keypoints, ())
    except ValueError:
        return False
    return True


def _read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines that are not empty, with their numbers."""
    try:
        text = read_text(path)
    except PreparationError:
        text = path.read_bytes().decode(errors='replace')
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def _parse_line(
    line: str, has_keypoints: bool, names: Sequence[str]
) -> tuple[int, tuple[float, float, float, float]]:
    """Reads class and corners from a line.

    Raises:
        ValueError: If the line is wrong. It names the reason.
    """
    words = line.split()
    shown = repr(line if len(line) <= 60 else f'{line[:60]}...')
    if ',' in line or ';' in line:
        is_decimal = len(words) > 4 and ';' not in line
        what = 'decimal commas, write points' if is_decimal else 'commas, write spaces'
        raise ValueError(f'{shown} has {what}')
    if finite_number(words[0]) is None and (words[0] in names or not words[0][0].isdigit()):
        raise ValueError(f'{shown} begins with a name, write the number of the class')
    values = [finite_number(word) for word in words]
    if None in values:
        raise ValueError(f'{shown} has a word that is no number')
    if len(values) < 5:
        raise ValueError(f'{shown} has {len(values)} numbers, write 5')
    if values[0] < 0 or values[0] % 1:
        raise ValueError(f'{shown} begins with no number of a class, count them from 0')
    if has_keypoints:
        values = values[:5]
    # The sixth value is a confidence.
    if len(values) in (5, 6):
        x, y, width, height = values[1:5]
        if max(values[1:5]) > 2:
            raise ValueError(
                f'{shown} counts in pixels, write parts of the width and height of the image'
            )
        return int(values[0]), (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if not len(values) % 2:
        raise ValueError(f'{shown} has {len(values)} numbers, write 5, or pairs after the class')
    if max(values[1:]) > _FARTHEST:
        raise ValueError(
            f'{shown} has values above 1: write parts of the image; with keypoints, give the YAML '
            'file their kpt_shape'
        )
    xs, ys = values[1::2], values[2::2]
    return int(values[0]), (min(xs), min(ys), max(xs), max(ys))


def _read_descriptions(source: SourceFolder) -> tuple[list[_Description], list[str]]:
    """Returns the descriptions of data sets by path, and YAML files that cannot be read."""
    found, not_read = [], []
    for path in source.with_suffix('.yaml', '.yml'):
        try:
            content = yaml.safe_load(read_text(path))
        # PyYAML raises a ValueError for a date that does not exist.
        except (yaml.YAMLError, ValueError) as error:
            not_read.append(' '.join(f'{path}: {error}'.split()))
            continue
        names = content.get('names') if isinstance(content, dict) else None
        # The YAML file may belong to another program.
        if not isinstance(names, (list, dict)):
            continue
        if any(isinstance(name, (list, dict)) for name in _values(names)) or (
            isinstance(names, dict) and not all(str(key).isdigit() for key in names)
        ):
            not_read.append(f'{path}: its names are neither a list nor numbered')
            continue
        places = {split: content.get(split) or [] for split in ('train', 'val', 'test')}
        places['val'] = places['val'] or content.get('valid') or content.get('validation') or []
        found.append(
            _Description(
                path,
                names,
                content.get('nc'),
                {split: _name_places(place) for split, place in places.items() if place},
                str(content.get('path') or ''),
                'kpt_shape' in content,
            )
        )
    for path in source.with_suffix('.data'):
        # A line of Darknet's file is "valid = data/valid.txt".
        pairs = [line.partition('=')[::2] for _, line in _read_lines(path)]
        places = {
            split: [place.strip()] for key, place in pairs if (split := split_from_words([key]))
        }
        if places:
            found.append(_Description(path, places=places))
    return found, not_read


def _name_places(place: object) -> list[str]:
    """Returns the folders and lists of a split. Other values, such as 0.8, match no folder."""
    return [*map(str, place)] if isinstance(place, (list, tuple)) else [str(place)]


def _values(names: list | dict) -> list:
    return list(names.values()) if isinstance(names, dict) else names


def _named_classes(path: Path, names: list | dict, count: object) -> list[str]:
    if isinstance(names, dict):
        by_number = {str(number): name for number, name in names.items()}
        if by_number.keys() != set(map(str, range(len(by_number)))):
            raise PreparationError(
                f'{path} gives its classes the numbers {", ".join(by_number)}: number classes and '
                'labels 0, 1, ...'
            )
        names = [by_number[str(number)] for number in range(len(by_number))]
    unquoted = [name for name in names if isinstance(name, bool) or name is None]
    if unquoted:
        raise PreparationError(
            f'{path} has a class {unquoted[0]}, as YAML reads yes, no and null: put names into '
            'quotes'
        )
    if isinstance(count, int) and count != len(names):
        raise PreparationError(
            f'{path} says nc: {count}, but names {len(names)} classes: correct one of them, or '
            'name the classes with --classes, in the order of their numbers'
        )
    return list(map(str, names))


def _has_keypoints(descriptions: Sequence[_Description]) -> bool:
    return any(item.has_keypoints for item in descriptions)


def _find_renamed(
    source: SourceFolder, descriptions: Sequence[_Description], names: Sequence[str]
) -> list[str]:
    """Returns the numbers whose names in the folder differ from the given names."""
    try:
        own = _read_classes(source, descriptions, ())
    except PreparationError:
        return []
    return [
        f'{number}: {old} is now {new}'
        for number, (old, new) in enumerate(zip(own, names, strict=False))
        if old != new
    ]


def _read_classes(
    source: SourceFolder, descriptions: Sequence[_Description], not_read: Sequence[str]
) -> list[str]:
    """Returns the longest list of a folder's classes. All others must be its beginning."""
    lists = {
        item.path: _named_classes(item.path, item.names, item.count)
        for item in descriptions
        if item.names is not None
    }
    for path in source.files:
        if path.name.lower() in _CLASS_FILES or path.suffix.lower() == '.names':
            lists[path] = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not lists:
        raise PreparationError(
            f'{source.root} does not say what its classes are called, neither in a data.yaml nor '
            f'in {" or ".join(_CLASS_FILES)}'
            + (f' ({not_read[0]})' if not_read else '')
            + ': name them with --classes, in the order of their numbers'
        )
    longest = max(lists, key=lambda path: len(lists[path]))
    for path, names in lists.items():
        if names != lists[longest][: len(names)]:
            raise PreparationError(
                f'{path} and {longest} do not list the same classes: renumber the labels so that '
                'one list holds for all, and name it with --classes'
            )
    return lists[longest]
