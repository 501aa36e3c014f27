"""The annotations of a folder, independent of the format."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..datasets.findings import Finding, note

# A finding about images in folders with unexpected names, which are used.
IN_ANOTHER_FOLDER = (
    'images were found in another folder than their annotations',
    'They are taken because of their names: remove the annotations if they are of other images',
)


class PreparationError(ValueError):
    """A folder cannot be prepared. The message names the reason and the remedy."""


@dataclass(frozen=True)
class LabeledBox:
    """A box of an image.

    Attributes:
        name: The name of its class.
        corners: (x1, y1, x2, y2), in pixels, or in 0..1 if the image is ``relative``.
        ignored: Whether training and evaluation ignore it, as crowds in COCO and difficult objects
            in Pascal VOC.
    """

    name: str
    corners: tuple[float, float, float, float]
    ignored: bool = False


@dataclass(frozen=True)
class LabeledImage:
    """An image and its boxes.

    Attributes:
        path: The image file.
        boxes: The objects of the image. Empty if it shows background only.
        annotation: The file with the annotation. None if there is none.
        split: 'train', 'val' or 'test'. None if the folder does not say it.
        size: Width and height in the annotation. None if it has none.
        relative: Whether the corners are parts of width and height, in 0..1.
    """

    path: Path
    boxes: tuple[LabeledBox, ...]
    annotation: Path | None = None
    split: str | None = None
    size: tuple[int, int] | None = None
    relative: bool = False


@dataclass
class LabeledFolder:
    """The annotations of a folder.

    Attributes:
        images: The annotated images, in the order of their paths.
        classes: Names, in the order of the labels.
        findings: What was left out, changed or noticed.
        lost_lists: For each list of images without any matching image, its first line.
    """

    images: list[LabeledImage]
    classes: list[str]
    findings: list[Finding] = field(default_factory=list)
    lost_lists: list[str] = field(default_factory=list)


def order_classes(found: Sequence[str], classes: Sequence[str]) -> tuple[list[str], list[Finding]]:
    """Orders the classes of a folder as the user wants.

    Args:
        found: The names in the folder.
        classes: The same names in the wanted order, perhaps with others. Empty keeps the order.

    Returns:
        The ordered names, and findings.

    Raises:
        PreparationError: If a name occurs twice, or if ``classes`` lacks one of the folder's.
    """
    names = list(classes) or list(found)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise PreparationError(
            f'the class {repeated[0]!r} is listed twice in {names}: give every class its own name'
        )
    unknown = [name for name in found if name not in names]
    if unknown:
        raise PreparationError(
            f'the classes {unknown} are not among those named ({names}): name them as well'
        )
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[''.join(filter(str.isalnum, name.casefold()))].append(name)
    return names, note(
        'names of classes differ in capitals, spaces or signs only',
        'They are different classes; if they are not, rename them in the annotations',
        (', '.join(group) for key, group in alike.items() if key and len(group) > 1),
    )


def finite_number(text: str | None) -> float | None:
    """Returns the number in a text. None if it is not a number, or not finite."""
    try:
        value = float(text or '')
    except ValueError:
        return None
    return value if math.isfinite(value) else None
