"""Draws detections on images."""

import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np

from .detections import Detections


def drawable_names(classes: Sequence[str]) -> list[str]:
    """Returns the class names that OpenCV can draw.

    OpenCV 5 draws most alphabets. OpenCV 4 draws ASCII only: accents are removed there, and a name
    with other letters is replaced by the number of its class.

    Args:
        classes: The names of all classes.

    Returns:
        A name for each class.
    """
    if hasattr(cv2, 'FontFace'):
        return list(classes)
    names = []
    for number, name in enumerate(classes):
        letters = unicodedata.normalize('NFKD', name)
        plain = ''.join(letter for letter in letters if not unicodedata.combining(letter))
        names.append(plain if plain.isascii() else f'class {number}')
    return names


def draw(image: np.ndarray, found: Detections, names: Sequence[str]) -> np.ndarray:
    """Draws detections on a copy of an image.

    Args:
        image: (H, W, 3), uint8, BGR.
        found: The objects, in pixels of the image.
        names: A name for each class, see :func:`drawable_names`.

    Returns:
        The copy.
    """
    image = image.copy()
    for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
        hue = np.uint8([[[label * 180 // len(names), 200, 230]]])
        colour = tuple(map(int, cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0]))
        x1, y1, x2, y2 = map(int, box)
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2)
        text, font = f'{names[label]} {score:.2f}', cv2.FONT_HERSHEY_SIMPLEX
        (width, height), _ = cv2.getTextSize(text, font, 0.45, 1)
        top = max(y1 - height - 6, 0)
        cv2.rectangle(image, (x1, top), (x1 + width + 4, top + height + 6), colour, -1)
        cv2.putText(image, text, (x1 + 2, top + height + 2), font, 0.45, (0, 0, 0), 1)
    return image
