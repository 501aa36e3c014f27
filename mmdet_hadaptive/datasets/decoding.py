"""Decodes images, JPEGs by the fastest library that refuses damaged ones."""

import io
from typing import Any

import cv2
import numpy as np
from mmcv import transforms
from mmcv.image import imfrombytes
from mmengine.fileio import get
from PIL import ExifTags, Image, ImageOps

from hadaptive_runtime.images import describe_depth

try:
    import simplejpeg
except ImportError:  # There may be no wheel of it; Pillow gives the same pixels.
    simplejpeg = None

# What simplejpeg converts to three channels. Of CMYK it makes no colours.
_COLORSPACES = ('YCbCr', 'Gray', 'RGB')
_JPEG, _PNG = b'\xff\xd8', b'\x89PNG\r\n\x1a\n'
# Formats that hold no more than 8 bits per channel; of JPEGs, Pillow reads no others.
_SHALLOW = (_JPEG, b'BM', b'RIFF')
# Of an image; Pillow warns of half as many.
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)


class DeepImageError(ValueError):
    """An image has more than 8 bits per channel, or floating point values."""


def decode_image(content: bytes) -> np.ndarray:
    """Decodes an image file as ``LoadImageFromFile`` does with ``imdecode_backend='pillow'``.

    The pixels are the same (of JPEGs bitwise with libjpeg-turbo's default settings, as Pillow and
    OpenCV have them), but for grey images with an alpha channel. That is dropped, as in colour
    images and in the runtime, where MMCV blends the image with a colour of its own.
    ``simplejpeg`` decodes upright JPEGs without defects; Pillow decodes all other files, and all
    where it is not installed. Images with more than 8 bits per channel are refused, since nothing
    says which of their values is white: Pillow cuts grey values off at 255, and divides colours by
    256.

    Args:
        content: The bytes of the file.

    Returns:
        Pixels (H, W, 3), uint8, in the order blue, green, red; contiguous, so that OpenCV can
        write to them.

    Raises:
        DeepImageError: If the image has more than 8 bits per channel, or floating point values.
        Image.DecompressionBombError: If the image has more than ``MAX_PIXELS`` pixels.
        OSError: If the file is damaged or truncated. What Pillow raises for damaged files of other
            formats may have other types.
    """
    refuse_deep(content)
    if simplejpeg is not None and content.startswith(_JPEG) and _is_upright(content):
        try:
            if simplejpeg.decode_jpeg_header(content)[2] in _COLORSPACES:
                return simplejpeg.decode_jpeg(content, 'BGR')
        except ValueError:
            pass  # Damaged, or only unusual: Pillow knows.
    pixels = _decode_grey_alpha(content)
    # Its channels are turned round by a view.
    return (
        np.ascontiguousarray(imfrombytes(content, backend='pillow')) if pixels is None else pixels
    )


class LoadImageFromFile(transforms.LoadImageFromFile):
    """MMCV's transform for Pillow, but grey images lose an alpha channel, as colour images do.

    Its options are those of MMCV's that leave three channels of 8 bits.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds the image and its shape.

        Args:
            results: A dictionary that has the image's path as ``img_path``.

        Returns:
            The same, with ``img`` (H, W, 3), uint8, BGR, ``img_shape`` and ``ori_shape``.
        """
        path = results['img_path']
        if not path.lower().endswith(('.jpg', '.jpeg')):
            pixels = _decode_grey_alpha(get(path, backend_args=self.backend_args))
            if pixels is not None:
                shape = pixels.shape[:2]
                return results | dict(img=pixels, img_shape=shape, ori_shape=shape)
        return super().transform(results)


def refuse_deep(content: bytes) -> None:
    """Refuses images that have not 8 bits per channel, before anything decodes them.

    Args:
        content: The bytes of the file.

    Raises:
        DeepImageError: If the image has more than 8 bits per channel, or floating point values.
    """
    if content.startswith(_SHALLOW):
        return
    if content.startswith(_PNG):
        bits = content[24:25]
        found = 'uint16' if bits == b'\x10' else 'uint8'
    else:
        try:
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            return
        found = 'uint8' if pixels is None else str(pixels.dtype)
    if found != 'uint8':
        raise DeepImageError(describe_depth(found))


def _decode_grey_alpha(content: bytes) -> np.ndarray | None:
    """Grey as three channels, of an image that has grey and an alpha channel; None of others."""
    with Image.open(io.BytesIO(content)) as image:
        if image.mode != 'LA':
            return None
        grey = np.asarray(ImageOps.exif_transpose(image).getchannel('L'))
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)


def _is_upright(content: bytes) -> bool:
    """Whether neither EXIF nor XMP data says that an image is to be turned."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    # Damaged files make decoders raise almost anything; the one that follows says what is wrong.
    except Exception:
        return False
