"""Decodes images. For JPEGs it uses the fastest library that refuses damaged files."""

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
except ImportError:  # Not every platform has a wheel of it. Pillow gives the same pixels.
    simplejpeg = None

# simplejpeg converts these to three channels. It cannot convert CMYK.
_COLORSPACES = ('YCbCr', 'Gray', 'RGB')
_JPEG, _PNG = b'\xff\xd8', b'\x89PNG\r\n\x1a\n'
# These formats hold at most 8 bits per channel. Pillow reads no other JPEGs.
_SHALLOW = (_JPEG, b'BM', b'RIFF')
# The limit for one image. Pillow warns at half of it.
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)


class DeepImageError(ValueError):
    """An image has more than 8 bits per channel, or floating point values."""


def decode_image(content: bytes) -> np.ndarray:
    """Decodes an image file as ``LoadImageFromFile`` does with ``imdecode_backend='pillow'``.

    The pixels are the same, except for grey images with an alpha channel. (Those of JPEGs are equal
    bit by bit, because Pillow and OpenCV use libjpeg-turbo's default settings.) The alpha channel
    is dropped, as in colour images and in the runtime. MMCV would blend the image with a colour.
    ``simplejpeg`` decodes upright JPEGs without defects. Pillow decodes all other files, and all
    files if ``simplejpeg`` is not installed. Images with more than 8 bits per channel are refused,
    because it is unknown which value is white: Pillow clips grey values at 255, and divides colours
    by 256.

    Args:
        content: The bytes of the file.

    Returns:
        Pixels (H, W, 3), uint8, BGR. They are contiguous, so that OpenCV can write to them.

    Raises:
        DeepImageError: If the image has more than 8 bits per channel, or floating point values.
        Image.DecompressionBombError: If the image has more than ``MAX_PIXELS`` pixels.
        OSError: If the file is damaged or truncated. For some formats Pillow raises other types.
    """
    refuse_deep(content)
    if simplejpeg is not None and content.startswith(_JPEG) and _is_upright(content):
        try:
            if simplejpeg.decode_jpeg_header(content)[2] in _COLORSPACES:
                return simplejpeg.decode_jpeg(content, 'BGR')
        except ValueError:
            pass  # The file is damaged or unusual. Pillow decides.
    pixels = _decode_grey_alpha(content)
    # Pillow gives RGB. BGR is a view of it.
    return (
        np.ascontiguousarray(imfrombytes(content, backend='pillow')) if pixels is None else pixels
    )


class LoadImageFromFile(transforms.LoadImageFromFile):
    """MMCV's transform for Pillow. But grey images with alpha lose only their alpha channel.

    It has those of MMCV's options that give three channels of 8 bits.
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
    """Refuses images with more than 8 bits per channel, without decoding them.

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
    """Returns an image with grey and alpha as three grey channels. None for other images."""
    with Image.open(io.BytesIO(content)) as image:
        if image.mode != 'LA':
            return None
        grey = np.asarray(ImageOps.exif_transpose(image).getchannel('L'))
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)


def _is_upright(content: bytes) -> bool:
    """Returns whether neither EXIF nor XMP data rotate an image."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    # Decoders raise almost any type for damaged files. The next decoder names the reason.
    except Exception:
        return False
