"""Finds what is wrong with a COCO-format data set before anyone trains on it."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from rich.progress import track

_KEYS = {
    'images': ('id', 'file_name', 'width', 'height'),
    # Without iscrowd training works, and pycocotools fails at the first validation.
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd'),
    'categories': ('id', 'name'),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a data set.

    Attributes:
        is_error: Whether training on it would fail or learn something wrong. Otherwise it is a
            note on what training leaves out or clips.
        problem: What is wrong.
        remedy: What to do about it.
        places: Where it was found, if there are such places.
    """

    is_error: bool
    problem: str
    remedy: str
    places: tuple[str, ...] = ()

    def describe(self, max_places: int | None = None) -> str:
        """One line that says all.

        Args:
            max_places: How many places to name; all if not given.

        Returns:
            'ERROR' or 'note', the problem, its places and the remedy.
        """
        shown = self.places[:max_places]
        more = ', ...' if len(shown) < len(self.places) else ''
        places = f' ({", ".join(shown)}{more})' if shown else ''
        kind = 'ERROR' if self.is_error else 'note'
        return f'{kind}: {self.problem}{places}. {self.remedy}'


def check_coco(
    annotation_file: str | Path,
    image_folder: str | Path | None,
    classes: Sequence[str],
    read_images: bool = False,
    test_mode: bool = False,
) -> list[Finding]:
    """Checks annotations and images in COCO's format against the classes of a config.

    Args:
        annotation_file: The JSON file of instances.
        image_folder: Folder that the file names in it are relative to. Without it no files are
            looked at.
        classes: The names that the config gives to the labels 0, 1, ...
        read_images: Also decode every image and compare its size with the annotation.
        test_mode: The data is not trained on, so that annotations may be missing.

    Returns:
        What was found, errors first; empty if nothing is wrong.
    """
    try:
        coco = json.loads(Path(annotation_file).read_text())
    except FileNotFoundError:
        return [
            Finding(
                True,
                f'the annotation file {annotation_file} does not exist',
                "Set the data set's data_root and ann_file, or put (or link) the data there",
            )
        ]
    except (ValueError, OSError) as error:
        return [
            Finding(
                True,
                f'the annotation file {annotation_file} is not readable JSON: {error}',
                'Write or copy it again',
            )
        ]
    if test_mode and isinstance(coco, dict):
        coco.setdefault('annotations', [])
    findings = _check_format(coco, annotation_file)
    if findings:
        return findings
    findings = [
        *_check_classes(coco, classes, annotation_file),
        *_check_references(coco),
        *_check_boxes(coco),
    ]
    if not test_mode:
        findings += _check_amount(coco)
    if image_folder is not None:
        findings += _check_files(coco, Path(image_folder))
        if read_images:
            findings += _check_images(coco, Path(image_folder))
    return sorted(findings, key=lambda finding: not finding.is_error)


def _check_format(coco: Any, annotation_file: str | Path) -> list[Finding]:
    remedy = 'Convert it to COCO format (images, annotations, categories)'
    missing = [
        name for name in _KEYS if not isinstance(coco, dict) or not isinstance(coco.get(name), list)
    ]
    if missing:
        return [Finding(True, f'{annotation_file} has no list of {", ".join(missing)}', remedy)]
    findings = []
    for name, keys in _KEYS.items():
        lacking = [
            f'{name}[{i}]'
            for i, item in enumerate(coco[name])
            if not isinstance(item, dict) or any(key not in item for key in keys)
        ]
        findings += _found(True, f'{name} lack one of {", ".join(keys)}', remedy, lacking)
    if findings:
        return findings
    return [
        *_found(
            True,
            'images whose width or height is not a positive number',
            'Correct them',
            (
                f'image {item["id"]}: {item["width"]!r} x {item["height"]!r}'
                for item in coco['images']
                if not all(_is_number(item[key]) and item[key] > 0 for key in ('width', 'height'))
            ),
        ),
        *_found(
            True,
            'annotations whose area is not a number',
            'Correct them',
            (
                f'annotation {item["id"]}: {item["area"]!r}'
                for item in coco['annotations']
                if not _is_number(item['area'])
            ),
        ),
    ]


def _check_classes(
    coco: dict[str, Any], classes: Sequence[str], annotation_file: str | Path
) -> list[Finding]:
    names = [category['name'] for category in coco['categories']]
    unknown = [name for name in classes if name not in names]
    if unknown:
        return [
            Finding(
                True,
                f'the config names classes {unknown} that {annotation_file} does not have; it has '
                f'{names}',
                f'Set metainfo=dict(classes={tuple(names)}) and num_classes={len(names)}',
            )
        ]
    in_file_order = tuple(name for name in names if name in classes)
    if in_file_order != tuple(classes):
        return [
            Finding(
                True,
                f'the config lists the classes as {tuple(classes)}, but MMDetection numbers them '
                f'in the order of {annotation_file}, so that labels would carry wrong names',
                f'Set metainfo=dict(classes={in_file_order})',
            )
        ]
    left_out = [name for name in names if name not in classes]
    if left_out:
        return [
            Finding(
                False,
                f'the categories {left_out} are not among the classes of the config',
                'Their boxes are left out',
            )
        ]
    return []


def _check_references(coco: dict[str, Any]) -> list[Finding]:
    findings = []
    image_ids = {image['id'] for image in coco['images']}
    category_ids = {category['id'] for category in coco['categories']}
    for name in _KEYS:
        counts = Counter(item['id'] for item in coco[name])
        repeated = [str(i) for i, count in counts.items() if count > 1]
        findings += _found(True, f'ids of {name} are not unique', 'Number them anew', repeated)
    findings += _found(
        True,
        'annotations have a category_id that does not exist',
        'Add the category or correct the annotation',
        (
            f'annotation {item["id"]}: category {item["category_id"]}'
            for item in coco['annotations']
            if item['category_id'] not in category_ids
        ),
    )
    findings += _found(
        True,
        'annotations belong to an image that does not exist',
        'Add the image or remove the annotation',
        (
            f'annotation {item["id"]}: image {item["image_id"]}'
            for item in coco['annotations']
            if item['image_id'] not in image_ids
        ),
    )
    findings += _found(
        True,
        'boxes are not four finite numbers [x, y, width, height]',
        'Correct or remove them',
        (
            f'annotation {item["id"]}: {item["bbox"]}'
            for item in coco['annotations']
            if not _is_box(item['bbox'])
        ),
    )
    return findings


def _check_amount(coco: dict[str, Any]) -> list[Finding]:
    if not coco['images'] or not coco['annotations']:
        return [Finding(True, 'there are no images or no annotations', 'Nothing can be learned')]
    annotated = {item['image_id'] for item in coco['annotations']}
    bare = [image['file_name'] for image in coco['images'] if image['id'] not in annotated]
    return _found(False, 'images have no annotations', 'Training leaves them out', bare)


def _check_files(coco: dict[str, Any], folder: Path) -> list[Finding]:
    if not folder.is_dir():
        return [
            Finding(
                True,
                f'the image folder {folder} does not exist',
                "Set the data set's data_root and data_prefix, or put (or link) the images there",
            )
        ]
    # One listing per folder: asking for each of COCO's 118,000 files takes minutes on a network.
    listings: dict[Path, set[Path]] = {}
    missing = []
    for image in coco['images']:
        path = folder / image['file_name']
        if path.parent not in listings:
            listings[path.parent] = set(path.parent.glob('*'))
        if path not in listings[path.parent]:
            missing.append(str(path))
    return _found(
        True, 'image files do not exist', 'Copy them there or remove them from the file', missing
    )


def _check_boxes(coco: dict[str, Any]) -> list[Finding]:
    sizes = {image['id']: (image['width'], image['height']) for image in coco['images']}
    empty, outside, sticking_out = [], [], []
    for item in coco['annotations']:
        if not _is_box(item['bbox']) or item['image_id'] not in sizes:
            continue
        x, y, width, height = item['bbox']
        image_width, image_height = sizes[item['image_id']]
        place = f'annotation {item["id"]} in image {item["image_id"]}: {item["bbox"]}'
        if width < 1 or height < 1 or item['area'] <= 0:
            empty.append(place)
        elif x >= image_width or y >= image_height or x + width <= 0 or y + height <= 0:
            outside.append(place)
        elif x < 0 or y < 0 or x + width > image_width or y + height > image_height:
            sticking_out.append(place)
    return [
        *_found(False, 'boxes have no area (under one pixel)', 'They are left out', empty),
        *_found(False, 'boxes lie outside their image', 'They are left out', outside),
        *_found(False, 'boxes reach beyond their image', 'They are clipped', sticking_out),
    ]


def _check_images(coco: dict[str, Any], folder: Path) -> list[Finding]:
    def problem(image: dict[str, Any]) -> tuple[str, str] | None:
        path = folder / image['file_name']
        try:
            with Image.open(path) as picture:
                # Training turns the image as its EXIF data says, and so do annotation tools.
                size = ImageOps.exif_transpose(picture).size
        except FileNotFoundError:
            return None  # _check_files says so.
        except (OSError, SyntaxError, ValueError) as error:
            return 'unreadable', f'{path}: {error}'
        if size != (image['width'], image['height']):
            return 'size', f'{path}: {size}, annotated {(image["width"], image["height"])}'
        return None

    with ThreadPoolExecutor() as pool:
        results = list(
            track(
                pool.map(problem, coco['images']),
                'reading images',
                total=len(coco['images']),
                transient=True,
            )
        )
    found: dict[str, list[str]] = {'unreadable': [], 'size': []}
    for kind, place in filter(None, results):
        found[kind].append(place)
    return [
        *_found(
            True,
            'images are empty, truncated or not images',
            'Copy them again or remove them from the annotation file',
            found['unreadable'],
        ),
        *_found(
            True,
            'images have another size than annotated (width, height)',
            'Correct the annotation file; if width and height are swapped, the boxes were drawn '
            'on the image before it was turned as its EXIF data says',
            found['size'],
        ),
    ]


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _found(is_error: bool, problem: str, remedy: str, places: Iterable[str]) -> list[Finding]:
    """A finding if there are places, with their number."""
    places = tuple(places)
    return [Finding(is_error, f'{len(places)} {problem}', remedy, places)] if places else []
