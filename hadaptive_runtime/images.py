"""Reads images, draws detections on them, and writes them."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .errors import ExportError

if TYPE_CHECKING:
    from .detector import Detections

IMAGES = {'.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff'}
# A marker of a JPEG: neither data (a zero follows), a restart within them, nor filler before one.
_MARKER = re.compile(rb'\xff[^\x00\xd0-\xd7\xff]')
_END = 0xD9
_WITHOUT_LENGTH = (0x01, 0xD8)


def read_image(file: Path) -> np.ndarray | None:
    """Reads an image as MMDetection's LoadImageFromFile reads it.

    Grey and CMYK become BGR, 16 bits become 8, a fourth channel is dropped, and the image is put
    upright as its EXIF data say. Unlike there, truncated files are refused; OpenCV 4 fills JPEG up
    with grey.

    Args:
        file: The image.

    Returns:
        (H, W, 3), uint8, BGR; None if it is empty, truncated or no image.

    Raises:
        OSError: If the file cannot be read.
    """
    content = file.read_bytes()
    if content.startswith(b'\xff\xd8') and not _has_end(content):
        return None
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None


def _has_end(jpeg: bytes) -> bool:
    """Whether a JPEG has its end marker: not that of a thumbnail, whatever follows it."""
    position = 2
    while marker := _MARKER.search(jpeg, position):
        position = marker.end()
        kind = jpeg[position - 1]
        if kind == _END:
            return True
        if kind not in _WITHOUT_LENGTH:
            position += int.from_bytes(jpeg[position : position + 2], 'big')
    return False


def write_image(file: Path, image: np.ndarray) -> None:
    """Writes an image whole or not at all.

    Args:
        file: What it is to be called; its suffix is one of :data:`IMAGES`.
        image: (H, W, 3), uint8, BGR.

    Raises:
        ExportError: If the file cannot be written, or its format not hold as many pixels; what was
            there before is still there.
    """
    is_encoded, content = cv2.imencode(file.suffix, image)
    if not is_encoded:
        height, width = image.shape[:2]
        raise ExportError(
            f'{file} cannot hold {width} x {height} pixels: convert the image to PNG first'
        )
    unfinished = file.with_name(f'{file.name}.unfinished')
    try:
        unfinished.write_bytes(content.tobytes())
        unfinished.replace(file)
    except OSError as error:
        raise ExportError(
            f'{file} cannot be written ({error.strerror}): make room, make the folder writable, or '
            'name another with --out'
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def draw(
    image: np.ndarray, found: 'Detections', num_classes: int, threshold: float = 0.0
) -> np.ndarray:
    """Draws detections on a copy of an image.

    Args:
        image: (H, W, 3), uint8, BGR.
        found: In pixels of the image.
        num_classes: Over which the colours are spread.
        threshold: The lowest score that is drawn.

    Returns:
        The copy.
    """
    image = image.copy()
    rows = zip(found.boxes, found.scores, found.labels, found.class_names, strict=True)
    for box, score, label, name in rows:
        if score < threshold:
            continue
        hue = np.uint8([[[label * 180 // num_classes, 200, 230]]])
        colour = tuple(map(int, cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0]))
        x1, y1, x2, y2 = map(int, box)
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2)
        text, font = f'{name} {score:.2f}', cv2.FONT_HERSHEY_SIMPLEX
        (width, height), _ = cv2.getTextSize(text, font, 0.45, 1)
        top = max(y1 - height - 6, 0)
        cv2.rectangle(image, (x1, top), (x1 + width + 4, top + height + 6), colour, -1)
        cv2.putText(image, text, (x1 + 2, top + height + 2), font, 0.45, (0, 0, 0), 1)
    return image
