"""Reads the XML files of Pascal VOC."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from ..datasets.findings import note
from .annotations import (
    IN_ANOTHER_FOLDER,
    LabeledBox,
    LabeledFolder,
    LabeledImage,
    finite_number,
    order_classes,
)
from .source import SourceFolder
from .split_lists import Splits

# The parser does not know some encodings, and raises the last two errors for them.
_NO_XML = (ElementTree.ParseError, OSError, ValueError, LookupError)
_ENCODING = re.compile(rb'\s*<\?xml[^>]*?encoding\s*=\s*["\']([\w.-]+)')
_TRUE = ('1', 'true', 'yes')


def read_voc(source: SourceFolder, classes: Sequence[str] = ()) -> LabeledFolder:
    """Reads one XML file per image, as LabelImg, CVAT and Pascal VOC write them.

    Corners are not changed: Pascal VOC itself counts pixels from 1, most tools from 0. Objects that
    are marked as difficult are ignored. The splits come from lists of images, as in
    ``ImageSets/Main``, or from folders with the name of a split. The image has the name of the XML
    file. If several images (such as masks) share a name, the one beside the XML file is used, or
    the one with the suffix of its ``filename``. If no image has that name, the one that
    ``filename`` names is used.

    Args:
        source: The folder.
        classes: The order of the classes. The default is alphabetical.

    Returns:
        The images with annotations.

    Raises:
        PreparationError: If ``classes`` lacks a class.
    """
    splits = Splits(source)
    images, unreadable, alone, renamed, boxless, lost, elsewhere = [], [], [], [], [], [], []
    pairs: list[tuple[Path, Path | None]] = []
    read: list[tuple[str, list[LabeledBox], list[str], tuple[int, ...]]] = []
    for path in source.with_suffix('.xml'):
        try:
            root = _parse(path)
        except _NO_XML as error:
            unreadable.append(f'{path}: {error}')
            continue
        if root.tag != 'annotation':
            continue
        name = ' '.join((root.findtext('filename') or '').split())
        image, place = _find_image(source, path, name)
        pairs.append((path.relative_to(source.root), image))
        boxes, reasons = [], []
        for item in root.iter('object'):
            try:
                boxes.append(_read_object(item))
            except ValueError as error:
                reasons.append(f'{path}: {error}')
        size = tuple(
            int(finite_number(root.findtext(f'size/{key}')) or 0) for key in ('width', 'height')
        )
        read.append((place, boxes, reasons, size))
    for (relative, own), image, (place, boxes, reasons, size) in zip(
        pairs, source.drop_strangers(pairs), read, strict=True
    ):
        path = source.root / relative
        if image is None:
            alone.append(str(path) if own else place)
            continue
        renamed += [place] if place else []
        elsewhere += [f'{path}: {image}'] if source.is_elsewhere(relative, image, 2) else []
        boxless += reasons
        if reasons and not boxes:
            lost.append(str(image))
            continue
        images.append(
            LabeledImage(image, tuple(boxes), path, splits.find(image), size if all(size) else None)
        )
    used = {str(image.path) for image in images} | set(lost)
    found = sorted({box.name for image in images for box in image.boxes})
    names, alike = order_classes(found, classes)
    findings = [
        *alike,
        *splits.findings,
        *note('files cannot be read as XML', 'They are left out', unreadable),
        *note(
            'annotation files have no image, or several of that name', 'They are left out', alone
        ),
        *note(
            'annotation files name another image than the one that is called as they are',
            'The one that is called as they are is taken',
            renamed,
        ),
        *note(*IN_ANOTHER_FOLDER, elsewhere),
        *note('objects have no name or no four corners', 'They are left out', boxless),
        *note('images have no object that can be read', 'They are left out', lost),
        *note(
            'images have no annotation file',
            'They are left out; one without objects makes them images without boxes',
            (str(path) for path in source.images if str(path) not in used),
        ),
    ]
    return LabeledFolder(images, names, findings, splits.lost_lists)


def refuse_voc(source: SourceFolder) -> str | None:
    """Explains why the XML files of a folder are not in Pascal VOC's format.

    Returns:
        The first wrong file and the reason. An empty text if a file is right. None if there are no
        XML files.
    """
    reason = None
    for path in source.with_suffix('.xml'):
        try:
            root = _parse(path)
        except _NO_XML as error:
            reason = reason or f'{path} cannot be read as XML ({error})'
            continue
        if root.tag == 'annotation':
            return ''
        reason = reason or f'{path} holds <{root.tag}>, not <annotation>'
    return reason


def _parse(path: Path) -> ElementTree.Element:
    content = path.read_bytes()
    try:
        return ElementTree.fromstring(content)
    # The parser does not know encodings with several bytes per character.
    except ValueError:
        encoding = _ENCODING.match(content)
        if encoding is None:
            raise
        name = encoding[1].decode().lower()
        # GB18030 contains the characters of GB2312 and GBK. Files often name the wrong one.
        name = 'gb18030' if name in ('gb2312', 'gbk') else name
        return ElementTree.fromstring(content.decode(name))


def _find_image(source: SourceFolder, path: Path, name: str) -> tuple[Path | None, str]:
    """Returns the image of an annotation file, and a remark about it."""
    own = path.relative_to(source.root).with_suffix('')
    suffix = Path(name.replace('\\', '/')).suffix
    # The suffix may be that before a conversion. The image beside the file is used anyway.
    image = source.find_beside(path) or source.find(path, f'{own}{suffix}')
    named = source.find(path, name) if name else None
    if image is None:
        image = named
    elif named and named.stem not in (image.stem, own.name) and named.suffix == suffix:
        return image, f'{path}: {name}'
    if image is None or source.are_apart(path, image):
        unread = source.find_unread(path.stem) or source.find_unread(name)
        return None, f'{path}: {unread.name} cannot be read' if unread else str(path)
    return image, ''


def _read_object(item: ElementTree.Element) -> LabeledBox:
    name = ' '.join((item.findtext('name') or '').split())
    texts = {key: item.findtext(f'bndbox/{key}') for key in ('xmin', 'ymin', 'xmax', 'ymax')}
    corners = [finite_number(text) for text in texts.values()]
    if not name:
        raise ValueError('no name')
    if None in corners:
        key = [*texts][corners.index(None)]
        raise ValueError(
            f'{name} has {key} {texts[key]!r}' if texts[key] else f'{name} has no {key}'
        )
    difficult = (item.findtext('difficult') or '').strip().lower() in _TRUE
    return LabeledBox(name, tuple(corners), difficult)
