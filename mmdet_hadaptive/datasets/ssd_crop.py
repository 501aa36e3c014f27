"""SSD's random expansion, crop and resizing in one step, for the pixels of the result only."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.fileio import get

from .decoding import decode_image

# As in MMDetection, so many crops are tried before another overlap is drawn.
_NUM_TRIALS = 50
# OpenCV 4 cannot warp an image with a longer side.
_MAX_WARPED = 32766


@TRANSFORMS.register_module()
class LoadSSDCrop(BaseTransform):
    """Loads an image like MMDetection's transforms for SSD, but several times as fast.

    It replaces ``LoadImageFromFile``, ``Expand``, ``MinIoURandomCrop`` and ``Resize`` (with
    ``keep_ratio=False``). It comes after ``LoadAnnotations``. First it chooses the crop from the
    boxes, with all candidates at once. Then it interpolates the pixels of the result from the
    decoded image, without the canvas of up to sixteen times the size.

    The distributions of crops, boxes and labels are MMDetection's: the same draws give the same
    values, bit by bit. Without expansion, this is also true for the pixels. With expansion, the
    pixels are equal except for rounding, and except for pixels along a border of the crop inside
    a magnified image. Random numbers come from NumPy's global generator, which MMEngine seeds in
    each worker. Their order is not MMDetection's.

    Required keys: ``img_path``; ``gt_bboxes`` (float32), ``gt_bboxes_labels``,
    ``gt_ignore_flags``. Changed: these three. Added: ``img`` (uint8, BGR), ``img_shape``,
    ``ori_shape``, ``scale``, ``scale_factor``, ``keep_ratio``.

    Args:
        scale: Width and height of the result in pixels.
        mean: The colour of the canvas, RGB, 0 to 255.
        expand_ratio: The limits of the canvas's sides, as multiples of the image's.
        expand_prob: The probability of the expansion.
        min_ious: Lower limits for the IoU of each box with the crop. For each image one of them is
            drawn, or no limit, or no crop.
        min_crop_size: The lower limit of the crop's sides, as a part of the canvas's.
        backend_args: The storage of the file, as for ``LoadImageFromFile``.

    Raises:
        ValueError: If a number is out of its limits, or if an annotation has masks or maps, which
            this transform cannot crop.
    """

    def __init__(
        self,
        scale: tuple[int, int],
        mean: Sequence[float],
        expand_ratio: tuple[float, float] = (1, 4),
        expand_prob: float = 0.5,
        min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
        min_crop_size: float = 0.3,
        backend_args: dict[str, Any] | None = None,
    ) -> None:
        if not 1 <= expand_ratio[0] <= expand_ratio[1]:
            raise ValueError(f'expand_ratio must be 1 <= low <= high, got {expand_ratio}')
        if not 0 <= expand_prob <= 1:
            raise ValueError(f'expand_prob must be from 0 to 1, got {expand_prob}')
        if not 0 < min_crop_size <= 1:
            raise ValueError(f'min_crop_size must be in (0, 1], got {min_crop_size}')
        self.scale = tuple(scale)
        # The mean in an image of integers.
        self.fill = tuple(int(value) for value in reversed(mean))
        self.expand_ratio = tuple(expand_ratio)
        self.expand_prob = expand_prob
        self.modes = (1, *min_ious, 0)
        self.min_crop_size = min_crop_size
        self.backend_args = backend_args

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Loads, expands, crops and resizes.

        Args:
            results: The annotated image, see the class.

        Returns:
            The same dictionary with image and boxes.
        """
        for key in ('gt_masks', 'gt_seg_map'):
            if key in results:
                raise ValueError(
                    f"LoadSSDCrop crops boxes, not {key}: use MMDetection's LoadImageFromFile, "
                    'Expand, MinIoURandomCrop and Resize'
                )
        image = decode_image(get(results['img_path'], backend_args=self.backend_args))
        height, width = image.shape[:2]
        canvas, left, top = self._expand(width, height)
        boxes = results['gt_bboxes'].numpy() + np.float32([left, top, left, top])
        patch, kept = self._choose_patch(canvas, boxes)
        if kept is not None:
            boxes = boxes[kept] - np.float32([*patch[:2], *patch[:2]])
            boxes = _clip(boxes, patch[2] - patch[0], patch[3] - patch[1])
            for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
                results[key] = results[key][kept]
        out_width, out_height = self.scale
        factors = out_width / (patch[2] - patch[0]), out_height / (patch[3] - patch[1])
        boxes = _clip(boxes * np.float32(factors * 2), out_width, out_height)
        results.update(
            img=self._resample(image, patch, left, top, canvas != (width, height)),
            img_shape=(out_height, out_width),
            ori_shape=(height, width),
            scale=self.scale,
            scale_factor=factors,
            keep_ratio=False,
            gt_bboxes=HorizontalBoxes(boxes, clone=False),
        )
        return results

    def _expand(self, width: int, height: int) -> tuple[tuple[int, int], int, int]:
        """Draws the size of the canvas, and the position of the image on it."""
        if np.random.uniform(0, 1) > self.expand_prob:
            return (width, height), 0, 0
        ratio = np.random.uniform(*self.expand_ratio)
        left = int(np.random.uniform(0, width * ratio - width))
        top = int(np.random.uniform(0, height * ratio - height))
        return (int(width * ratio), int(height * ratio)), left, top

    def _choose_patch(
        self, canvas: tuple[int, int], boxes: np.ndarray
    ) -> tuple[tuple[int, int, int, int], np.ndarray | None]:
        """Draws a crop (x1, y1, x2, y2), and finds the boxes with centres in it (None: all)."""
        while True:
            mode = self.modes[np.random.randint(len(self.modes))]
            if mode == 1:
                return (0, 0, *canvas), None
            patches = self._draw_patches(canvas)
            centers = (boxes[:, :2] + boxes[:, 2:]) / 2
            inside = ((centers > patches[:, None, :2]) & (centers < patches[:, None, 2:])).all(
                axis=2
            )
            if len(boxes):
                valid = (_ious(np.float32(patches), boxes).min(axis=1) >= mode) & inside.any(axis=1)
                patches, inside = patches[valid], inside[valid]
            if len(patches):
                return tuple(patches[0].tolist()), inside[0]

    def _draw_patches(self, canvas: tuple[int, int]) -> np.ndarray:
        """Draws crops (N, 4) with allowed aspect ratios. N is at most the number of trials."""
        draws = np.random.random_sample((_NUM_TRIALS, 2, 2))
        low = self.min_crop_size * np.array(canvas)
        sizes = low + (canvas - low) * draws[:, 0]
        ratios = sizes[:, 1] / sizes[:, 0]
        # MMDetection's uniform(x) draws from x to 1, not from 0 to x.
        room = canvas - sizes
        corners = room + (1 - room) * draws[:, 1]
        # Rounds towards zero, as int() does.
        patches = np.concatenate([corners, corners + sizes], axis=1).astype(np.int64)
        is_area = (patches[:, 2:] != patches[:, :2]).all(axis=1)
        return patches[(ratios >= 0.5) & (ratios <= 2) & is_area]

    def _resample(
        self,
        image: np.ndarray,
        patch: tuple[int, int, int, int],
        left: int,
        top: int,
        expanded: bool,
    ) -> np.ndarray:
        """Returns the pixels of the crop. The image lies at (left, top) of the canvas."""
        x1, y1, x2, y2 = patch
        if not expanded:
            return cv2.resize(image[y1:y2, x1:x2], self.scale, interpolation=cv2.INTER_LINEAR)
        # Maps the centre of a pixel of the result to the image.
        x_step, y_step = (x2 - x1) / self.scale[0], (y2 - y1) / self.scale[1]
        matrix = np.array(
            [
                [x_step, 0, (x_step - 1) / 2 + x1 - left],
                [0, y_step, (y_step - 1) / 2 + y1 - top],
            ]
        )
        border = dict(borderMode=cv2.BORDER_CONSTANT, borderValue=self.fill)
        if max(image.shape) > _MAX_WARPED:
            columns, x = _read_pixels(matrix[0, 0], matrix[0, 2], self.scale[0], image.shape[1])
            rows, y = _read_pixels(matrix[1, 1], matrix[1, 2], self.scale[1], image.shape[0])
            return cv2.remap(
                image[rows][:, columns], *np.meshgrid(x, y), cv2.INTER_LINEAR, **border
            )
        return cv2.warpAffine(
            image, matrix, self.scale, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, **border
        )


def _read_pixels(
    step: float, begin: float, count: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels of an axis that an interpolation reads, and the positions in them."""
    places = begin + step * np.arange(count)
    left = np.clip(np.floor(places), 0, length - 1)
    pixels = np.unique([left, np.minimum(left + 1, length - 1)]).astype(np.intp)
    return pixels, np.float32(np.searchsorted(pixels, left) + places - left)


def _clip(boxes: np.ndarray, width: float, height: float) -> np.ndarray:
    return np.clip(boxes, 0, np.float32([width, height, width, height]))


def _ious(patches: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns the IoUs (N, M), float32, of patches (N, 4) and boxes (M, 4), as in MMDetection."""
    patches = patches[:, None]
    sides = np.minimum(patches[..., 2:], boxes[:, 2:]) - np.maximum(patches[..., :2], boxes[:, :2])
    overlap = sides.clip(min=0).prod(axis=2)
    union = _areas(patches) + _areas(boxes) - overlap
    return overlap / np.maximum(union, np.float32(1e-6))


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
