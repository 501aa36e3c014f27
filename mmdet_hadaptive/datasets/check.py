"""Checks data sets in COCO's format before a training."""

import json
import os
import reprlib
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .findings import Finding, error, note
from .images import check_image_files, check_images

_KEYS = {
    'images': ('id', 'file_name', 'width', 'height'),
    # Without iscrowd the training works, but pycocotools fails at the first validation.
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd'),
    'categories': ('id', 'name'),
}


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    # math.isfinite fails for integers that are too large for a float.
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
    )


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))


def _is_file_name(name: Any) -> bool:
    if not isinstance(name, str) or not name or name.endswith('/') or '\0' in name:
        return False
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


_VALUES = (
    ('images', ('id',), _is_id, 'an integer'),
    ('images', ('file_name',), _is_file_name, 'the name of a file'),
    ('images', ('width', 'height'), lambda v: _is_number(v) and v > 0, 'a positive number'),
    ('annotations', ('id', 'image_id', 'category_id'), _is_id, 'an integer'),
    ('annotations', ('area',), _is_number, 'a number'),
    ('annotations', ('iscrowd',), lambda v: v in (0, 1), '0 or 1'),
    ('categories', ('id',), _is_id, 'an integer'),
    ('categories', ('name',), lambda v: isinstance(v, str), 'a string'),
)


def describe_classes(classes: str) -> str:
    """Explains why classes cannot be a text that is not the name of a file.

    Args:
        classes: The value of ``metainfo['classes']`` in a config.

    Returns:
        The problem and its remedy, in one line.
    """
    return (
        f'the classes are the text {classes!r}, which is neither a list of names nor a file of '
        f'them: write metainfo=dict(classes=({classes!r},)), with the comma'
    )


def read_coco(
    annotation_file: str | Path, test_mode: bool = False
) -> tuple[dict[str, Any], list[Finding]]:
    """Reads annotations and checks that they have COCO's format.

    Args:
        annotation_file: The JSON file of instances.
        test_mode: Whether the data is for tests only, so that annotations may be missing.

    Returns:
        The content of the file, and the errors. If there are none, the content has all lists and
        keys of the format, with values of the right types (except for the boxes).
    """
    try:
        coco = json.loads(Path(annotation_file).read_bytes())
    except FileNotFoundError:
        problem = f'the annotation file {annotation_file} does not exist'
        remedy = "Set the data set's data_root and ann_file, or put (or link) the data there"
        return {}, error(problem, remedy)
    except (ValueError, OSError, RecursionError) as reason:
        problem = f'the annotation file {annotation_file} is not readable JSON: {reason}'
        return {}, error(problem, 'Write or copy it again')
    if test_mode and isinstance(coco, dict):
        coco.setdefault('annotations', [])
    return coco, check_format(coco, annotation_file)


def check_annotations(
    coco: dict[str, Any],
    annotation_file: str | Path,
    image_folder: str | Path | None,
    classes: Sequence[str],
    read_images: bool = False,
    test_mode: bool = False,
) -> list[Finding]:
    """Checks annotations and images in COCO's format against the classes of a config.

    Args:
        coco: The content of the annotation file, as :func:`read_coco` returns it.
        annotation_file: The JSON file of instances. Findings name it.
        image_folder: The folder that the file names are relative to. Without it, no image is
            checked.
        classes: The names that the config gives to the labels 0, 1, ...
        read_images: Whether to decode every image and compare its size with the annotation.
        test_mode: Whether the data is for tests only, so that annotations may be missing.

    Returns:
        The findings, errors first. Empty if nothing is wrong.
    """
    findings = [
        *_check_classes(coco, classes, annotation_file),
        *_check_references(coco),
        *_check_boxes(coco),
        *_check_names(coco),
        *_check_repeated(coco),
        *_check_amount(coco, classes, test_mode),
    ]
    if image_folder is not None:
        findings += check_image_files(coco['images'], Path(image_folder))
        if read_images:
            findings += check_images(coco['images'], Path(image_folder))
    return sorted(findings, key=lambda finding: not finding.is_error)


def check_format(coco: Any, annotation_file: str | Path) -> list[Finding]:
    """Checks that the content of a JSON file has COCO's format.

    Args:
        coco: Content of the annotation file.
        annotation_file: The file. Errors name it.

    Returns:
        The errors, see :func:`read_coco`.
    """
    remedy = 'Convert it to COCO format (images, annotations, categories)'
    missing = [
        name for name in _KEYS if not isinstance(coco, dict) or not isinstance(coco.get(name), list)
    ]
    if missing:
        return error(f'{annotation_file} has no list of {", ".join(missing)}', remedy)
    findings = []
    for name, keys in _KEYS.items():
        lacking = [
            f'{name}[{i}]'
            for i, item in enumerate(coco[name])
            if not isinstance(item, dict) or any(key not in item for key in keys)
        ]
        findings += error(f'{name} lack one of {", ".join(keys)}', remedy, lacking)
    if findings:
        return findings
    return [
        finding
        for name, keys, is_valid, wanted in _VALUES
        for finding in error(
            f'{name} whose {" or ".join(keys)} is not {wanted}',
            'Correct them',
            (
                f'{name}[{i}]: {key}={reprlib.repr(item[key])}'
                for i, item in enumerate(coco[name])
                for key in keys
                if not is_valid(item[key])
            ),
        )
    ]


def _check_classes(
    coco: dict[str, Any], classes: Sequence[str], annotation_file: str | Path
) -> list[Finding]:
    names = [category['name'] for category in coco['categories']]
    repeated = [name for name, count in Counter(names).items() if count > 1 and name in classes]
    if repeated:
        return error(
            f'classes of the config are the name of several categories of {annotation_file}',
            'Give every category its own name',
            repeated,
        )
    unknown = [name for name in classes if name not in names]
    if unknown:
        return error(
            f'the config names classes {unknown} that {annotation_file} does not have; it has '
            f'{names}',
            f'Set metainfo=dict(classes={tuple(names)}) and num_classes={len(names)}, or, if '
            'other data sets have these classes, add them to the categories of this file',
        )
    in_file_order = tuple(name for name in names if name in classes)
    if in_file_order != tuple(classes):
        return error(
            f'the config lists the classes as {tuple(classes)}, but MMDetection numbers them '
            f'in the order of {annotation_file}, so that labels would carry wrong names',
            f'Set metainfo=dict(classes={in_file_order}), or, if other data sets have the '
            'order of the config, bring the categories of this file into it',
        )
    left_out = [name for name in names if name not in classes]
    if left_out:
        return note(
            f'the categories {left_out} are not among the classes of the config',
            'Their boxes are left out',
        )
    return []


def _check_references(coco: dict[str, Any]) -> list[Finding]:
    findings = []
    image_ids = {image['id'] for image in coco['images']}
    category_ids = {category['id'] for category in coco['categories']}
    for name in _KEYS:
        counts = Counter(item['id'] for item in coco[name])
        repeated = [str(i) for i, count in counts.items() if count > 1]
        findings += error(f'ids of {name} are not unique', 'Number them anew', repeated)
    findings += note(
        'annotations have the id 0',
        'COCO evaluation (pycocotools) counts what finds them as wrong: number them from 1',
        (f'annotations[{i}]' for i, item in enumerate(coco['annotations']) if item['id'] == 0),
    )
    findings += error(
        'annotations have a category_id that does not exist',
        'Add the category or correct the annotation',
        (
            f'annotation {item["id"]}: category {item["category_id"]}'
            for item in coco['annotations']
            if item['category_id'] not in category_ids
        ),
    )
    findings += error(
        'annotations belong to an image that does not exist',
        'Add the image or remove the annotation',
        (
            f'annotation {item["id"]}: image {item["image_id"]}'
            for item in coco['annotations']
            if item['image_id'] not in image_ids
        ),
    )
    findings += error(
        'boxes are not four finite numbers [x, y, width, height]',
        'Correct or remove them',
        (
            f'annotation {item["id"]}: {item["bbox"]}'
            for item in coco['annotations']
            if not _is_box(item['bbox'])
        ),
    )
    return findings


def count_boxes(coco: dict[str, Any], classes: Sequence[str]) -> int:
    """Counts the boxes that training and evaluation use.

    Args:
        coco: Content of an annotation file, in COCO's format.
        classes: The names that the config gives to the labels.

    Returns:
        The number of annotations of these classes without crowds.
    """
    chosen = {category['id'] for category in coco['categories'] if category['name'] in classes}
    return sum(
        item['category_id'] in chosen and not item['iscrowd'] for item in coco['annotations']
    )


def key_box(box: Sequence[float]) -> tuple[int, ...]:
    """Rounds the corners of a box to pixels.

    Args:
        box: x, y, width and height in finite numbers.

    Returns:
        Four numbers. They are equal for boxes that differ by rounding only.
    """
    x, y, width, height = box
    return tuple(map(round, (x, y, x + width, y + height)))


def _check_repeated(coco: dict[str, Any]) -> list[Finding]:
    seen: dict[tuple[int, ...], int] = {}
    repeated = []
    for item in coco['annotations']:
        if not _is_box(item['bbox']):
            continue
        key = (item['image_id'], item['category_id'], *key_box(item['bbox']))
        first = seen.setdefault(key, item['id'])
        if first != item['id']:
            repeated.append(f'annotation {item["id"]} like {first}')
    ids: dict[str, list[str]] = defaultdict(list)
    for image in coco['images']:
        ids[image['file_name']].append(str(image['id']))
    return [
        *note(
            'boxes are there more than once, with the same class',
            'A detector that finds the object once misses the others: remove them',
            repeated,
        ),
        *note(
            'images are listed more than once',
            'Merge their entries: each misses the boxes of the others',
            (f'{name}: ids {", ".join(found)}' for name, found in ids.items() if len(found) > 1),
        ),
    ]


def _check_amount(coco: dict[str, Any], classes: Sequence[str], test_mode: bool) -> list[Finding]:
    if not coco['images']:
        return error('there are no images', 'Add some')
    if test_mode:
        return []
    if not coco['annotations']:
        return error('there are no annotations', 'Nothing can be learned')
    if not count_boxes(coco, classes):
        return error(
            f'none of the {len(coco["annotations"])} boxes is learned: they are crowds '
            '(iscrowd=1), or of classes that the config does not name',
            'Set iscrowd=0 where the box is one object',
        )
    annotated = {item['image_id'] for item in coco['annotations']}
    bare = [image['file_name'] for image in coco['images'] if image['id'] not in annotated]
    return note('images have no annotations', 'Training leaves them out', bare)


def _check_names(coco: dict[str, Any]) -> list[Finding]:
    names = (image['file_name'] for image in coco['images'])
    return note(
        'file names are absolute or lead out of the image folder',
        'They are read from there; names relative to the folder work on other machines too',
        (
            name
            for name in names
            if Path(name).is_absolute() or os.path.normpath(name).split('/')[0] == '..'
        ),
    )


def _check_boxes(coco: dict[str, Any]) -> list[Finding]:
    sizes = {image['id']: (image['width'], image['height']) for image in coco['images']}
    empty, outside, sticking_out = [], [], []
    for item in coco['annotations']:
        if not _is_box(item['bbox']) or item['image_id'] not in sizes:
            continue
        x, y, width, height = item['bbox']
        image_width, image_height = sizes[item['image_id']]
        if width < 1 or height < 1 or item['area'] <= 0:
            found = empty
        elif (
            min(x + width, image_width) - max(x, 0) < 1
            or min(y + height, image_height) - max(y, 0) < 1
        ):
            found = outside
        elif x < 0 or y < 0 or x + width > image_width or y + height > image_height:
            found = sticking_out
        else:
            continue
        found.append(f'annotation {item["id"]} in image {item["image_id"]}: {item["bbox"]}')
    return [
        *note('boxes have no area (under one pixel)', 'They are left out', empty),
        *note('boxes have less than one pixel inside their image', 'They are left out', outside),
        *note('boxes reach beyond their image', 'They are clipped', sticking_out),
    ]
