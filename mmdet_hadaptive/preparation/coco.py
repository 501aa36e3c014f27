"""Reads the JSON files of COCO."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

from pycocotools import mask as run_lengths

from hadaptive_runtime.images import IMAGE_SUFFIXES

from ..datasets.check import check_annotations, check_format
from ..datasets.findings import note
from .annotations import (
    IN_ANOTHER_FOLDER,
    LabeledBox,
    LabeledFolder,
    LabeledImage,
    PreparationError,
    order_classes,
)
from .source import SourceFolder, plain_name, split_from_words
from .split_lists import Splits

_LISTS = ('images', 'annotations', 'categories')
# COCO has such files for the same images as ``instances_*``.
_OTHER_KINDS = ('person_keypoints', 'captions', 'stuff', 'panoptic')
# Compressed run lengths. The characters 'P' to 'o' say that a number goes on.
_RUN_LENGTHS = re.compile('[0-o]*[0-O]')


def read_coco(source: SourceFolder, classes: Sequence[str] = ()) -> LabeledFolder:
    """Reads COCO's JSON, one file for each split.

    Annotations without ``iscrowd``, ``area`` or ``id`` are allowed, because some tools do not write
    them. Polygons and masks without a ``bbox`` become the box around them. A category without boxes
    is skipped if another has its name. If a file lists an image twice, with the same name and size,
    the image has the boxes of both entries. The splits come from the names of the files, from lists
    of images, or from folders that have the name of a split.

    Args:
        source: The folder.
        classes: The order of the classes. Classes without boxes, such as Roboflow's category 0, may
            be left out. The default is all classes in the order of the files.

    Returns:
        The images that the files name.

    Raises:
        PreparationError: If a file does not have COCO's format, if it lists an image twice with
            different sizes, or if ``classes`` lacks a class.
    """
    splits = Splits(source)
    images: list[LabeledImage] = []
    lists: dict[Path, list[str]] = {}
    missing: list[str] = []
    repeated: list[str] = []
    elsewhere: list[str] = []
    files = [
        (path, coco, split_from_words(re.split('[^A-Za-z]+', path.stem)))
        for path, coco in _coco_files(source)
    ]
    pairs: list[tuple[PurePath, Path | None]] = []
    for path, coco, named in files:
        _check(path, coco)
        place = path.parent.relative_to(source.root) / (named or '')
        pairs += [
            (place / plain_name(item['file_name']).lstrip('/'), file)
            for item, file in zip(
                coco['images'], _match_images(path, coco, source, named), strict=True
            )
        ]
    matched = iter(source.drop_strangers(pairs))
    for path, coco, named in files:
        names = {category['id']: category['name'] for category in coco['categories']}
        lists[path] = list(names.values())
        boxes: dict[int, list[LabeledBox]] = defaultdict(list)
        for item in coco['annotations']:
            x, y, width, height = item['bbox']
            box = LabeledBox(
                names[item['category_id']], (x, y, x + width, y + height), bool(item['iscrowd'])
            )
            boxes[item['image_id']].append(box)
        entries: dict[Path, list[dict[str, Any]]] = defaultdict(list)
        for item in coco['images']:
            file = next(matched)
            if file is None:
                unread = source.find_unread(item['file_name'])
                missing.append(
                    f'{path}: {item["file_name"]}'
                    + (f' ({unread.name} cannot be read)' if unread else '')
                )
            else:
                entries[file].append(item)
                if source.is_elsewhere(PurePath(plain_name(item['file_name'])), file, 1):
                    elsewhere.append(f'{path}: {item["file_name"]} as {file}')
        for file, items in entries.items():
            if len(items) > 1:
                repeated.append(_check_repeated(path, items))
            images.append(
                LabeledImage(
                    file,
                    tuple(box for item in items for box in boxes[item['id']]),
                    path,
                    named or splits.find(file),
                    (items[0]['width'], items[0]['height']),
                )
            )
    found = list(dict.fromkeys(name for names in lists.values() for name in names))
    if classes:
        used = {box.name for image in images for box in image.boxes}
        found = [name for name in found if name in used]
    ordered, alike = order_classes(found, classes)
    findings = [
        *alike,
        *splits.findings,
        *note(
            'annotation files do not list the same classes',
            'The classes of all files are taken',
            (f'{path}: {", ".join(names)}' for path, names in lists.items())
            if len(set(map(frozenset, lists.values()))) > 1
            else (),
        ),
        *note('images are listed more than once', 'The boxes of all entries are taken', repeated),
        *note('images are not there, or several of that name', 'They are left out', missing),
        *note(*IN_ANOTHER_FOLDER, elsewhere),
    ]
    return LabeledFolder(images, ordered, findings, splits.lost_lists)


def refuse_coco(source: SourceFolder) -> str | None:
    """Explains why the JSON files of a folder are not in COCO's format.

    Returns:
        The first wrong file and the reason. An empty text if a file is right. None if there are no
        JSON files.
    """
    if next(_coco_files(source), None):
        return ''
    for path in source.with_suffix('.json'):
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, OSError, RecursionError) as error:
            return f'{path} cannot be read as JSON ({error})'
        if not isinstance(content, dict):
            return f'{path} holds a {type(content).__name__}, not a dict of {", ".join(_LISTS)}'
        return f'{path} has no {" and no ".join(key for key in _LISTS if key not in content)}'
    return None


def _check(path: Path, coco: dict[str, Any]) -> None:
    """Adds the values that some tools leave out, and refuses wrong content.

    Raises:
        PreparationError: If the file does not have COCO's format.
    """
    given = coco['annotations'] if isinstance(coco['annotations'], list) else []
    annotations = [item for item in given if isinstance(item, dict)]
    if any('id' not in item for item in annotations):
        for number, item in enumerate(annotations, 1):
            item['id'] = number
    for item in annotations:
        item.setdefault('iscrowd', 0)
        # The area of the box replaces it later.
        item.setdefault('area', 0.0)
        if not item.get('bbox') and (box := _surround(item.get('segmentation'))):
            item['bbox'] = box
    found_wrong = check_format(coco, path)
    if not found_wrong:
        _drop_parents(coco)
        found_wrong = check_annotations(coco, path, None, _names(coco), test_mode=True)
    errors = [finding for finding in found_wrong if finding.is_error]
    if errors:
        raise PreparationError(f'{path}: {errors[0].describe(3)}')


def _surround(polygons: Any) -> list[float] | None:
    """Returns the box around polygons, or around a mask in run-length encoding. None for others."""
    if isinstance(polygons, dict):
        try:
            height, width = polygons['size']
            counts = polygons['counts']
            if min(height, width) < 1 or not (
                isinstance(counts, list) or _RUN_LENGTHS.fullmatch(counts)
            ):
                # pycocotools would end the process, or read beyond the end of the text.
                return None
            if isinstance(counts, list):
                polygons = run_lengths.frPyObjects(polygons, height, width)
            box = run_lengths.toBbox(polygons).tolist()
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        return box if box[2] and box[3] else None
    if not isinstance(polygons, list) or not all(isinstance(p, list) for p in polygons):
        return None
    numbers = [value for polygon in polygons for value in polygon]
    if not numbers or not all(isinstance(value, (int, float)) for value in numbers):
        return None
    xs, ys = ([v for polygon in polygons for v in polygon[start::2]] for start in (0, 1))
    if len(xs) != len(ys):
        return None
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _drop_parents(coco: dict[str, Any]) -> None:
    """Leaves out categories without boxes that have the same name as another.

    Roboflow writes a parent category, which may have the same name as the only class.
    """
    used = {item['category_id'] for item in coco['annotations']}
    kept: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for category in sorted(coco['categories'], key=lambda category: category['id'] not in used):
        if category['id'] in used or not kept[category['name']]:
            kept[category['name']].append(category)
    coco['categories'] = [c for c in coco['categories'] if c in kept[c['name']]]


def _check_repeated(path: Path, items: Sequence[dict[str, Any]]) -> str:
    """Describes entries of a file for the same image.

    Raises:
        PreparationError: If their names or sizes differ.
    """
    ids = ' and '.join(str(item['id']) for item in items)
    if len({(item['file_name'], item['width'], item['height']) for item in items}) > 1:
        entries = ', '.join(
            f'{item["file_name"]} with {item["width"]} x {item["height"]}' for item in items
        )
        raise PreparationError(
            f'{path} has the images {ids} for one file, and they do not agree ({entries}): '
            'correct or remove one of them'
        )
    return f'{path}: {items[0]["file_name"]}, ids {ids}'


def _match_images(
    path: Path, coco: dict[str, Any], source: SourceFolder, named: str | None
) -> list[Path | None]:
    """Returns the files of an annotation file's images. None for those that are missing."""
    names = [item['file_name'] for item in coco['images']]
    files = [source.find(path, name, named) for name in names]
    splits = [source.split_of(file) if file else None for file in files]
    own = named or source.split_of(path)
    # All splits may lie in one folder of any name.
    others = set(splits) - {None, own} if own and own in splits else set()
    return [
        file if file and (split not in others or '/' in name) and _is_of_kind(file, name) else None
        for name, file, split in zip(names, files, splits, strict=True)
    ]


def _is_of_kind(image: Path, name: str) -> bool:
    """Returns whether a name can mean an image by its suffix.

    A mask may have the name of a photo with another suffix.
    """
    kinds = [Path(path).suffix.lower().replace('jpeg', 'jpg') for path in (image, name)]
    return kinds[0] == kinds[1] or not {*kinds} <= IMAGE_SUFFIXES


def _names(coco: dict[str, Any]) -> list[str]:
    categories = coco['categories'] if isinstance(coco['categories'], list) else []
    return [c['name'] for c in categories if isinstance(c, dict) and isinstance(c.get('name'), str)]


def _coco_files(source: SourceFolder) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yields COCO's files of a folder, without COCO's other kinds beside ``instances_*``."""
    paths = source.with_suffix('.json')
    for path in paths:
        kinds = (kind for kind in _OTHER_KINDS if path.name.startswith(kind))
        if any(path.with_name(f'instances{path.name.removeprefix(k)}') in paths for k in kinds):
            continue
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, OSError, RecursionError):
            continue
        if isinstance(content, dict) and {*_LISTS} <= content.keys():
            yield path, content
