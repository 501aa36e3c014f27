"""Decodes images, JPEGs by the fastest library that refuses damaged ones."""

import numpy as np
from mmcv.image import imfrombytes

try:
    import simplejpeg
except ImportError:  # There may be no wheel of it; Pillow gives the same pixels.
    simplejpeg = None

# What simplejpeg converts to three channels. Of CMYK it makes no colours.
_COLORSPACES = ('YCbCr', 'Gray', 'RGB')
_APP1, _SCAN = b'\xff\xe1', b'\xff\xda'
# Beginnings of the segments that may say how to turn the image, as Pillow looks for them.
_ORIENTED = (b'Exif\0', b'http://ns.adobe.com/xap/1.0/\0')


def decode_image(content: bytes) -> np.ndarray:
    """Decodes an image file as ``LoadImageFromFile`` does with ``imdecode_backend='pillow'``.

    The pixels are the same (of JPEGs bitwise with libjpeg-turbo's default settings, as Pillow and
    OpenCV have them). ``simplejpeg`` decodes JPEGs without EXIF data and without defects; Pillow
    decodes all other files, and all where it is not installed.

    Args:
        content: The bytes of the file.

    Returns:
        Pixels (H, W, 3), uint8, in the order blue, green, red; contiguous, so that OpenCV can
        write to them.

    Raises:
        OSError: If the file is damaged or truncated. What Pillow raises for damaged files of other
            formats may have other types.
    """
    if simplejpeg is not None and content[:2] == b'\xff\xd8' and not _may_be_turned(content):
        try:
            if simplejpeg.decode_jpeg_header(content)[2] in _COLORSPACES:
                return simplejpeg.decode_jpeg(content, 'BGR')
        except ValueError:
            pass  # Damaged, or only unusual: Pillow knows.
    # Its channels are turned round by a view.
    return np.ascontiguousarray(imfrombytes(content, backend='pillow'))


def _may_be_turned(content: bytes) -> bool:
    """Whether a JPEG has EXIF or XMP data."""
    position = 2
    while content[position : position + 1] == b'\xff':
        marker = content[position : position + 2]
        if marker == _SCAN:
            break
        if marker == _APP1 and content.startswith(_ORIENTED, position + 4):
            return True
        position += 2 + int.from_bytes(content[position + 2 : position + 4], 'big')
    return False
