"""Reads and writes images."""

import re
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from .errors import ExportError, describe_error
from .files import write_whole

# OpenCV does not encode all formats that it decodes.
WRITTEN_SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff'}
# Both OpenCV and Pillow read these.
_OTHER_SUFFIXES = {'.jpe', '.jfif', '.dib', '.jp2', '.ppm', '.pgm', '.pbm', '.pnm'}
IMAGE_SUFFIXES = WRITTEN_SUFFIXES | _OTHER_SUFFIXES
# Files of these formats may hold more than one image.
_PAGED = {'.tif', '.tiff', '.webp'}
# A marker of a JPEG. It is not data (a zero follows), not a restart in them, and not a fill byte.
_MARKER = re.compile(rb'\xff[^\x00\xd0-\xd7\xff]')
_END = 0xD9
_WITHOUT_LENGTH = (0x01, 0xD8)
# TIFF's tag ExtraSamples, and its value for an alpha channel that the colours do not contain.
_EXTRA_SAMPLES, _ALPHA = 338, 2


def is_image(file: Path) -> bool:
    """Returns whether a file has the suffix or the first bytes of an image."""
    if file.suffix.lower() in IMAGE_SUFFIXES:
        return True
    return _has_readable_name(file) and cv2.haveImageReader(str(file))


def has_several_images(file: Path) -> bool:
    """Returns whether a file holds more than one image. :func:`read_image` reads the first."""
    is_paged = file.suffix.lower() in _PAGED and _has_readable_name(file)
    return is_paged and cv2.imcount(str(file)) > 1


def _has_readable_name(file: Path) -> bool:
    """Returns whether OpenCV can take the name. OpenCV 5 would end the process for others."""
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_image(file: Path) -> np.ndarray:
    """Reads an image as MMDetection's LoadImageFromFile reads it.

    Grey and CMYK become BGR, an alpha channel is dropped, and the image is rotated as its EXIF data
    say. Unlike LoadImageFromFile, it refuses truncated files, which OpenCV 4 fills up with grey. It
    also refuses images with more than 8 bits per channel, because their scale is unknown.

    Args:
        file: The image.

    Returns:
        (H, W, 3), uint8, BGR.

    Raises:
        ExportError: If the image is refused.
        OSError: If the file cannot be read.
    """
    try:
        return _decode(file.read_bytes())
    except ExportError as error:
        raise ExportError(f'{file}: {error}') from error


def _decode(content: bytes) -> np.ndarray:
    """Returns the image. Its errors say what follows the file's name."""
    if not content:
        raise ExportError('empty: replace it')
    broken = 'truncated, or no image that OpenCV reads: replace it'
    if content.startswith(b'\xff\xd8') and not _has_end(content):
        raise ExportError(broken)
    pixels = np.frombuffer(_without_alpha(content), np.uint8)
    try:
        image = cv2.imdecode(pixels, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        # OpenCV does not convert grey images of 32 bits to colours.
        found = cv2.imdecode(pixels, cv2.IMREAD_UNCHANGED) if image is None else image
    except cv2.error as error:
        is_too_large = 'MAX_IMAGE' in str(error)
        remedy = (
            'cut it into smaller images, or let OPENCV_IO_MAX_IMAGE_PIXELS in the environment be '
            'larger'
        )
        raise ExportError(
            f'{describe_error(error)}: {remedy if is_too_large else "replace it"}'
        ) from error
    if found is not None and found.dtype != np.uint8:
        raise ExportError(describe_depth(str(found.dtype)))
    if image is None:
        raise ExportError(broken)
    return image


def _without_alpha(content: bytes) -> bytes:
    """Marks the alpha channel of a TIFF as a channel without meaning. Other files stay as they are.

    OpenCV would multiply the colours by an alpha channel, even if it then drops the channel.
    """
    order: Literal['little', 'big'] = 'little' if content.startswith(b'II*\0') else 'big'
    if order == 'big' and not content.startswith(b'MM\0*'):
        return content
    start = int.from_bytes(content[4:8], order)
    count = int.from_bytes(content[start : start + 2], order)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        is_extra = int.from_bytes(content[entry : entry + 2], order) == _EXTRA_SAMPLES
        value = slice(entry + 8, entry + 10)
        if is_extra and int.from_bytes(content[value], order) == _ALPHA:
            return content[: value.start] + bytes(2) + content[value.stop :]
    return content


def describe_depth(dtype: str) -> str:
    """Says why an image that does not have 8 bits per channel is refused, here and in training.

    Args:
        dtype: The type of its values, such as 'uint16'.

    Returns:
        The text that follows the file's name in an error.
    """
    return (
        f'values of the type {dtype}, but only images with 8 bits per channel (uint8) are read: '
        'scale the values to 0..255 and save the image again, in Python by '
        "cv2.imwrite('new.png', cv2.convertScaleAbs(cv2.imread('old.png', "
        'cv2.IMREAD_UNCHANGED), alpha=255 / white)), where white is the value of white'
    )


def _has_end(jpeg: bytes) -> bool:
    """Returns whether a JPEG has its end marker. Markers of thumbnails do not count."""
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
    """Writes an image completely or not at all.

    Args:
        file: The file to write. Its suffix is one of :data:`WRITTEN_SUFFIXES`.
        image: (H, W, 3), uint8, BGR.

    Raises:
        ExportError: If the file cannot be written, or if its format cannot hold so many pixels. An
            old file is then unchanged.
    """
    is_encoded, content = cv2.imencode(file.suffix, image)
    if not is_encoded:
        height, width = image.shape[:2]
        raise ExportError(
            f'{file} cannot hold {width} x {height} pixels: convert the image to PNG first'
        )
    write_whole(file, content.tobytes())
