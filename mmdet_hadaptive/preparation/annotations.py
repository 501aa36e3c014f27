"""What a folder says about its images, whatever its format."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..datasets import Finding

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


def find_images(folder: Path) -> list[Path]:
    """All image files below a folder, sorted by path."""
    return sorted(p for p in folder.rglob('*') if p.suffix.lower() in _IMAGE_SUFFIXES)


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
    """

    def __init__(self, images: Sequence[Path]) -> None:
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in images:
            self._by_stem[path.stem].append(path)

    def find(self, annotation: Path, name: str | None = None) -> Path | None:
        """The nearest image of a name.

        Args:
            annotation: The annotation's file.
            name: Of the image, with or without folders and suffix; the annotation's by default.

        Returns:
            Of the images of that name the one that shares most folders with the annotation; None
            if there is none, or if several are equally near.
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
        return nearest[0] if len(nearest) == 1 else None
