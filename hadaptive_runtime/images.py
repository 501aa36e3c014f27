"""Reads images, and draws detections on them."""

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from .detector import Detections

IMAGES = {'.jpg', '.jpeg', '.png', '.bmp', '.webp'}


def read_image(file: Path) -> np.ndarray | None:
    """Reads an image as MMDetection's LoadImageFromFile reads it.

    Grey and CMYK become BGR, 16 bits become 8, a fourth channel is dropped, and the image is put
    upright as its EXIF data say. Unlike there, truncated files are refused; OpenCV 4 fills JPEG up
    with grey.

    Args:
        file: The image.

    Returns:
        (H, W, 3), uint8, BGR; None if it cannot be read.
    """
    try:
        content = file.read_bytes()
    except OSError:
        return None
    # The end must come after the last start of the data; a thumbnail has an end of its own.
    jpeg = content.startswith(b'\xff\xd8')
    if jpeg and content.rfind(b'\xff\xd9') < content.rfind(b'\xff\xda'):
        return None
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None


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
