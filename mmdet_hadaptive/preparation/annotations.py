"""What a folder says about its images, whatever its format."""

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..datasets import Finding
from .errors import PreparationError

_IMAGE_SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff'}
_SPLITS = dict(
    train='train',
    training='train',
    val='val',
    valid='val',
    validation='val',
    test='test',
    testing='test',
)


@dataclass(frozen=True)
class LabeledBox:
    """A box of an image.

    Attributes:
        name: Of its class.
        corners: (x1, y1, x2, y2), in pixels, or in parts of the image where that says so.
        ignored: Whether it is neither to be learned nor to be counted, as crowds in COCO and
            difficult objects in Pascal VOC.
    """

    name: str
    corners: tuple[float, float, float, float]
    ignored: bool = False


@dataclass(frozen=True)
class LabeledImage:
    """An image and its boxes.

    Attributes:
        path: Its file.
        boxes: What is on it; background if empty.
        split: 'train', 'val' or 'test'; None if the folder does not say.
        size: Width and height that its annotation names; None if that names none.
        relative: Whether corners are parts of width and height, in 0..1.
    """

    path: Path
    boxes: tuple[LabeledBox, ...]
    split: str | None = None
    size: tuple[int, int] | None = None
    relative: bool = False


@dataclass
class LabeledFolder:
    """The annotations of a folder.

    Attributes:
        images: In the order of their paths.
        classes: Names, in the order of the labels.
        findings: What was left out.
    """

    images: list[LabeledImage]
    classes: list[str]
    findings: list[Finding] = field(default_factory=list)


def find_files(folder: Path) -> list[Path]:
    """All files below a folder, also in folders that are links, sorted by path.

    A folder that can be reached in several ways is entered once, as itself rather than by a link.
    """
    around = folder.resolve().parents
    files: list[Path] = []
    seen: set[Path] = set()
    waiting = [folder]
    for start in waiting:
        for place, folders, names in os.walk(start):
            real = Path(place).resolve()
            if real in seen or real in around:
                folders.clear()
                continue
            seen.add(real)
            files += [Path(place, name) for name in names]
            # os.walk passes over links; they are entered after all other folders.
            waiting += [
                Path(place, name) for name in sorted(folders) if Path(place, name).is_symlink()
            ]
    return sorted(files)


def find_images(folder: Path) -> list[Path]:
    """All image files below a folder, sorted by path."""
    return [path for path in find_files(folder) if path.suffix.lower() in _IMAGE_SUFFIXES]


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        PreparationError: If it has another encoding.
    """
    try:
        return path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise PreparationError(f'{path} is not in UTF-8 ({error}): save it so') from error


def split_from_path(path: Path, folder: Path) -> str | None:
    """The split that a folder on the way to a file names, such as ``train2017`` or ``valid``."""
    return split_from_words(path.relative_to(folder).parts[:-1])


def split_from_words(names: Iterable[str]) -> str | None:
    """The split that the first word of one of the names stands for; None if none does."""
    for name in names:
        word = re.split('[^a-z]', name.lower(), maxsplit=1)[0]
        if word in _SPLITS:
            return _SPLITS[word]
    return None


def finite_number(text: str | None) -> float | None:
    """The number that a text is; None if it is none, or not finite."""
    try:
        value = float(text or '')
    except ValueError:
        return None
    return value if math.isfinite(value) else None


class ImageIndex:
    """Finds the image that an annotation is about.

    Args:
        images: Those that may be meant.
        folder: The one that all are in.
    """

    def __init__(self, images: Sequence[Path], folder: Path) -> None:
        self._folder = folder
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in images:
            self._by_stem[path.stem].append(path)

    def find_beside(self, annotation: Path) -> Path | None:
        """The only image of an annotation's name in its own folder; None if there is none."""
        beside = [
            p for p in self._by_stem.get(annotation.stem, []) if p.parent == annotation.parent
        ]
        return beside[0] if len(beside) == 1 else None

    def find(
        self, annotation: Path, name: str | None = None, split: str | None = None
    ) -> Path | None:
        """The nearest image of a name.

        Args:
            annotation: The annotation's file.
            name: Of the image, with or without folders and suffix; the annotation's by default.
            split: 'train', 'val' or 'test', if the annotation says in which the image is.

        Returns:
            Of the images of that name the one that shares most folders with the annotation, of
            several the one in a folder of that split; None if that is none, or still several.
        """
        # Some tools write paths of Windows.
        name = (name or annotation.name).replace('\\', '/')
        stem = Path(name).stem
        candidates = self._by_stem.get(stem, [])
        exact = [path for path in candidates if path.as_posix().endswith('/' + name)]
        candidates = exact or candidates

        def shared(path: Path) -> int:
            return len([1 for a, b in zip(path.parts, annotation.parts, strict=False) if a == b])

        most = max(map(shared, candidates), default=0)
        nearest = [path for path in candidates if shared(path) == most]
        if len(nearest) > 1 and split:
            nearest = [path for path in nearest if split_from_path(path, self._folder) == split]
        return nearest[0] if len(nearest) == 1 else None
