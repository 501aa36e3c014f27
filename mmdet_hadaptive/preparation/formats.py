"""Finds out how a folder is annotated; reads Pascal VOC XML and COCO JSON."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ..datasets.check import check_annotations, check_format
from ..datasets.findings import find_places
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
    split_from_words,
)
from .errors import PreparationError
from .yolo import is_yolo, read_yolo, yolo_label

# The last two: of encodings that the parser does not know.
_NO_XML = (ElementTree.ParseError, OSError, ValueError, LookupError)


def read_voc(folder: Path, classes: Sequence[str] = ()) -> LabeledFolder:
    """Reads one XML file per image, as LabelImg, CVAT and Pascal VOC write them.

    Corners are taken as they are; Pascal VOC itself counts pixels from 1, most tools from 0. An
    object that is marked as difficult is ignored. ``ImageSets/Main`` gives the splits, where there
    is one, or folders called ``train``, ``val`` and the like do. The image is the one that is
    called as the XML file; of several (masks may be), the one beside it, or the one with the
    suffix of its ``filename``.

    Args:
        folder: Where the files are, however deep.
        classes: The order of the classes; by default that of the alphabet.

    Returns:
        The images with an annotation.

    Raises:
        PreparationError: If ``classes`` lacks a class.
    """
    files = find_images(folder)
    index = ImageIndex(files, folder)
    sets = _read_image_sets(folder)
    images, unreadable, alone, boxless = [], [], [], []
    for path in _files_with(folder, '.xml'):
        try:
            root = ElementTree.parse(path).getroot()
        except _NO_XML as error:
            unreadable.append(f'{path}: {error}')
            continue
        if root.tag != 'annotation':
            continue
        suffix = Path((root.findtext('filename') or '').strip()).suffix
        # The suffix may be of before a conversion: what is beside the file needs none.
        image = index.find_beside(path) or index.find(path, path.stem + (suffix or path.suffix))
        if image is None or _are_apart(path, image, folder):
            alone.append(str(path))
            continue
        boxes = []
        for item in root.iter('object'):
            box = _read_voc_object(item)
            if box is None:
                boxless.append(f'{path}: {(item.findtext("name") or "").strip() or "no name"}')
            else:
                boxes.append(box)
        size = tuple(
            int(finite_number(root.findtext(f'size/{key}')) or 0) for key in ('width', 'height')
        )
        split = sets.get(image.stem) or split_from_path(image, folder)
        images.append(LabeledImage(image, tuple(boxes), split, size if all(size) else None))
    used = {image.path for image in images}
    findings = [
        *find_places(False, 'files are no XML', 'They are left out', unreadable),
        *find_places(
            False,
            'annotation files have no image, or several of that name',
            'They are left out',
            alone,
        ),
        *find_places(
            False, 'objects have no name or no four corners', 'They are left out', boxless
        ),
        *find_places(
            False,
            'images have no annotation file',
            'They are left out; one without objects makes them images without boxes',
            (str(path) for path in files if path not in used),
        ),
    ]
    found = sorted({box.name for image in images for box in image.boxes})
    return LabeledFolder(images, _ordered(found, classes), findings)


def read_coco(folder: Path, classes: Sequence[str] = ()) -> LabeledFolder:
    """Reads COCO's JSON, one file for each split.

    Annotations without ``iscrowd`` or ``area`` are read just so: some tools do not write them.

    Args:
        folder: Where annotation files and images are, however deep.
        classes: The order of the classes, of which those without boxes may be left out, such as
            Roboflow's category 0; by default all, in the order of the files.

    Returns:
        The images that the files name.

    Raises:
        PreparationError: If a file does not fit COCO's format or an image is not there, or
            ``classes`` lacks a class.
    """
    index = ImageIndex(find_images(folder), folder)
    images: list[LabeledImage] = []
    found: dict[str, None] = {}
    missing = []
    for path, coco in _coco_files(folder):
        for item in coco['annotations'] if isinstance(coco['annotations'], list) else []:
            if isinstance(item, dict):
                item.setdefault('iscrowd', 0)
                # Of the box, later.
                item.setdefault('area', 0.0)
        found_wrong = check_format(coco, path) or check_annotations(
            coco, path, None, _names(coco), test_mode=True
        )
        errors = [finding for finding in found_wrong if finding.is_error]
        if errors:
            raise PreparationError(f'{path}: {errors[0].describe(3)}')
        names = {category['id']: category['name'] for category in coco['categories']}
        found.update(dict.fromkeys(names.values()))
        boxes: dict[int, list[LabeledBox]] = {}
        for item in coco['annotations']:
            x, y, width, height = item['bbox']
            box = LabeledBox(
                names[item['category_id']], (x, y, x + width, y + height), bool(item['iscrowd'])
            )
            boxes.setdefault(item['image_id'], []).append(box)
        named = split_from_words(path.stem.split('_'))
        files = _match_images(path, coco, index, folder, named)
        for item, file in zip(coco['images'], files, strict=True):
            if file is None:
                missing.append(f'{path}: {item["file_name"]}')
                continue
            split = named or split_from_path(file, folder)
            size = (item['width'], item['height'])
            images.append(LabeledImage(file, tuple(boxes.get(item['id'], ())), split, size))
    findings = find_places(
        False, 'images are not there, or several of that name', 'They are left out', missing
    )
    if classes:
        used = {box.name for image in images for box in image.boxes}
        found = {name: None for name in found if name in used}
    return LabeledFolder(images, _ordered(list(found), classes), findings)


FORMATS: dict[str, Callable[[Path, Sequence[str]], LabeledFolder]] = dict(
    voc=read_voc, yolo=read_yolo, coco=read_coco
)


def find_format(folder: Path) -> str:
    """Says in which format a folder is annotated.

    Args:
        folder: The folder.

    Returns:
        One of :data:`FORMATS`.

    Raises:
        PreparationError: If it is none of them, or more than one.
    """
    images = find_images(folder)
    if not images:
        raise PreparationError(f'{folder} has no images: name the folder that they are in')
    found = []
    if any(_is_voc(path) for path in _files_with(folder, '.xml')):
        found.append('voc')
    if any(yolo_label(image).is_file() and is_yolo(yolo_label(image)) for image in images):
        found.append('yolo')
    if next(_coco_files(folder), None):
        found.append('coco')
    if len(found) != 1:
        raise PreparationError(
            f'{folder} has annotations in the formats {", ".join(found)}: choose one with --format'
            if found
            else f'{folder} has {len(images)} images, but neither Pascal VOC XML nor YOLO text '
            'files beside them nor COCO JSON: convert the annotations to one of these'
        )
    return found[0]


def _ordered(found: list[str], classes: Sequence[str]) -> list[str]:
    unknown = [name for name in found if classes and name not in classes]
    if unknown:
        raise PreparationError(
            f'the classes {unknown} are not among those named ({list(classes)}): name them as well'
        )
    return list(classes) or found


def _are_apart(annotation: Path, image: Path, folder: Path) -> bool:
    """Whether the folders of both name a split, and not the same."""
    splits = {split_from_path(path, folder) for path in (annotation, image)}
    return len(splits - {None}) > 1


def _match_images(
    path: Path, coco: dict[str, Any], index: ImageIndex, folder: Path, named: str | None
) -> list[Path | None]:
    """The files of the images of an annotation file; None for those that are not there."""
    names = [item['file_name'] for item in coco['images']]
    files = [index.find(path, name, named) for name in names]
    splits = [split_from_path(file, folder) if file else None for file in files]
    own = named or split_from_path(path, folder)
    # All splits may lie in one folder, whatever it is called.
    others = set(splits) - {own, None} if own and own in splits else set()
    return [
        file if file and (split not in others or '/' in name) and _is_of_kind(file, name) else None
        for name, file, split in zip(names, files, splits, strict=True)
    ]


def _is_of_kind(image: Path, name: str) -> bool:
    """Whether the name of an image has its suffix, or none: a mask may be called like a photo."""
    kinds = [Path(path).suffix.lower().replace('jpeg', 'jpg') for path in (image, name)]
    return kinds[1] in ('', kinds[0])


def _files_with(folder: Path, suffix: str) -> list[Path]:
    return [path for path in find_files(folder) if path.suffix == suffix]


def _is_voc(path: Path) -> bool:
    try:
        return ElementTree.parse(path).getroot().tag == 'annotation'
    except _NO_XML:
        return False


def _read_voc_object(item: ElementTree.Element) -> LabeledBox | None:
    name = ' '.join((item.findtext('name') or '').split())
    corners = [
        finite_number(item.findtext(f'bndbox/{k}')) for k in ('xmin', 'ymin', 'xmax', 'ymax')
    ]
    if not name or None in corners:
        return None
    return LabeledBox(name, tuple(corners), item.findtext('difficult', '0').strip() == '1')


def _read_image_sets(folder: Path) -> dict[str, str]:
    """The split of each image by its stem."""
    sets = {}
    for split in ('test', 'val', 'train'):
        for path in find_files(folder):
            if path.parts[-3:] == ('ImageSets', 'Main', f'{split}.txt'):
                lines = map(str.split, read_text(path).splitlines())
                sets |= {words[0]: split for words in lines if words}
    return sets


def _names(coco: dict[str, Any]) -> list[str]:
    categories = coco['categories'] if isinstance(coco['categories'], list) else []
    return [c['name'] for c in categories if isinstance(c, dict) and isinstance(c.get('name'), str)]


def _coco_files(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """COCO's files of instances; of several kinds, as in COCO itself, ``instances_*`` alone."""
    paths = _files_with(folder, '.json')
    instances = [path for path in paths if path.name.startswith('instances')]
    for path in instances or paths:
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, OSError, RecursionError):
            continue
        if isinstance(content, dict) and {'images', 'annotations', 'categories'} <= content.keys():
            yield path, content
