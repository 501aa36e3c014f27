"""Finds the format of a folder's annotations, and reads them."""

from collections.abc import Callable, Sequence

from hadaptive_runtime.images import IMAGE_SUFFIXES

from .annotations import LabeledFolder, PreparationError
from .coco import read_coco, refuse_coco
from .source import SourceFolder
from .voc import read_voc, refuse_voc
from .yolo import read_yolo, refuse_yolo

FORMATS: dict[str, Callable[[SourceFolder, Sequence[str]], LabeledFolder]] = dict(
    voc=read_voc, yolo=read_yolo, coco=read_coco
)
_REFUSALS: dict[str, Callable[[SourceFolder], str | None]] = dict(
    voc=refuse_voc, yolo=refuse_yolo, coco=refuse_coco
)


def find_format(source: SourceFolder) -> str:
    """Finds the format of a folder's annotations.

    Args:
        source: The folder.

    Returns:
        One of :data:`FORMATS`.

    Raises:
        PreparationError: If it has none of them, or several.
    """
    refusals = {name: refuse(source) for name, refuse in _REFUSALS.items()}
    found = [name for name, refusal in refusals.items() if refusal == '']
    if len(found) == 1:
        return found[0]
    if found:
        raise PreparationError(
            f'{source.root} has annotations in the formats {", ".join(found)}: choose one with '
            '--format'
        )
    reasons = [refusal for refusal in refusals.values() if refusal]
    raise PreparationError(
        f'{source.root} has {len(source.images)} images, but no annotations that can be read: '
        f'{"; ".join(reasons)}: correct them or convert them to Pascal VOC, YOLO or COCO'
        if reasons
        else f'{source.root} has {len(source.images)} images, but neither Pascal VOC XML nor YOLO '
        'text files nor COCO JSON: convert the annotations to one of these'
    )


def read_folder(
    source: SourceFolder, annotation_format: str | None, classes: Sequence[str]
) -> tuple[str, LabeledFolder]:
    """Reads the annotations of a folder.

    Args:
        source: The folder.
        annotation_format: One of :data:`FORMATS`. None to find it.
        classes: The classes, as for :func:`~mmdet_hadaptive.preparation.prepare_dataset`.

    Returns:
        The format, and the annotated images.

    Raises:
        PreparationError: If the folder has no images, or no readable annotations.
    """
    if annotation_format not in (None, *FORMATS):
        raise PreparationError(
            f'annotation_format must be one of {", ".join(FORMATS)}, got {annotation_format!r}'
        )
    if not source.images and not source.unusual:
        held = f'it has {source.describe_suffixes()}' if source.files else 'it is empty'
        raise PreparationError(
            f'{source.root} has no images that can be read ({held}): name the folder that they are '
            f'in, or convert them to one of {", ".join(sorted(IMAGE_SUFFIXES))}'
        )
    name = annotation_format or find_format(source)
    return name, FORMATS[name](source, classes)
