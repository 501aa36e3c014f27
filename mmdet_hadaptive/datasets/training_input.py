"""The first and the last transform of MMDetection's training pipelines, in less time."""

from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import TRANSFORMS
from mmengine.fileio import get

from .decoding import decode_image


@TRANSFORMS.register_module()
class LoadCheckedImage(BaseTransform):
    """Loads an image in colour and, unlike MMDetection's default, refuses a truncated one.

    It stands for ``LoadImageFromFile(imdecode_backend='pillow')``, whose pixels it has
    (:func:`decode_image`). In a test pipeline that stays, as ``DetInferencer`` looks for its name.

    Required key: ``img_path``. Added: ``img`` (uint8, BGR), ``img_shape``, ``ori_shape``.

    Args:
        backend_args: Where the file is, as for ``LoadImageFromFile``.
    """

    def __init__(self, backend_args: dict[str, Any] | None = None) -> None:
        self.backend_args = backend_args

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Loads the image.

        Args:
            results: The annotated image.

        Returns:
            The same dictionary with the image.
        """
        image = decode_image(get(results['img_path'], backend_args=self.backend_args))
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results


@TRANSFORMS.register_module()
class PackPlanes(PackDetInputs):
    """``PackDetInputs``, several times as fast for large images.

    That one lets NumPy turn pixels into planes, of flipped images backwards, byte by byte. Here
    OpenCV does both. Results and arguments are the same.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Packs the image and its annotations.

        Args:
            results: The annotated image; its ``img`` becomes a view of its planes.

        Returns:
            MMDetection's ``inputs`` and ``data_samples``.
        """
        image = results.get('img')
        if image is not None and image.ndim == 3:
            # Its planes are what PackDetInputs wants, which copies them no more.
            results['img'] = _split(_unflip(image)).transpose(1, 2, 0)
        return super().transform(results)


def _unflip(image: np.ndarray) -> np.ndarray:
    """The same pixels without the steps backwards by which NumPy flips."""
    vertical, horizontal = (step < 0 for step in image.strides[:2])
    if not (vertical or horizontal):
        return image
    stored = image[:: -1 if vertical else 1, :: -1 if horizontal else 1]
    flipped = cv2.flip(stored, -1 if vertical and horizontal else int(horizontal))
    return flipped.reshape(image.shape)


def _split(image: np.ndarray) -> np.ndarray:
    height, width, channels = image.shape
    planes = np.empty((channels, height, width), image.dtype)
    cv2.split(image, list(planes))
    return planes
