"""Makes the input of an exported model from an image."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np

from .errors import ExportError


@dataclass(frozen=True)
class Preprocessing:
    """Preprocesses an image that OpenCV has read.

    It resizes the image, orders the channels, puts the image into the top left corner of a canvas
    of ``pad_value``, and normalises: (canvas - mean) / std.

    Attributes:
        input_size: Height and width of the canvas, in pixels.
        resize: Height and width that the image is resized to, in pixels. With ``keep_ratio``, the
            image is scaled up or down to fit into them.
        keep_ratio: Whether the image keeps its ratio of width to height.
        channel_order: The order that the model expects, 'BGR' or 'RGB'.
        mean: Per channel of the model's input, in pixel values (0 to 255).
        std: Per channel, in pixel values.
        pad_value: Per channel, in pixel values, before the normalisation.
    """

    input_size: tuple[int, int]
    resize: tuple[int, int]
    keep_ratio: bool
    channel_order: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad_value: tuple[float, ...]

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> 'Preprocessing':
        """Reads the attributes from a model's metadata, also if these come from JSON."""
        values = {name: metadata[name] for name in cls.__dataclass_fields__}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def metadata(self) -> dict[str, Any]:
        """Returns the attributes as metadata."""
        return asdict(self)

    def outside(self) -> 'Preprocessing':
        """Returns the preprocessing for a model that orders and normalises the channels itself."""
        pad_value = self.pad_value[::-1] if self.channel_order == 'RGB' else self.pad_value
        return replace(
            self, channel_order='BGR', mean=(0.0,) * 3, std=(1.0,) * 3, pad_value=pad_value
        )

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Makes the input.

        Args:
            image: (H, W, 3), uint8, BGR.

        Returns:
            The canvas, (3, *input_size), float32, and the two factors by which the image was
            resized, for width and height.
        """
        height, width = image.shape[:2]
        new_height, new_width = self.resize
        if self.keep_ratio:
            scale = min(new_height / height, new_width / width)
            new_height, new_width = (max(int(x * scale + 0.5), 1) for x in (height, width))
        resized = cv2.resize(image, (new_width, new_height))
        return self.canvas(resized), np.float32([new_width / width, new_height / height])

    def canvas(self, image: np.ndarray) -> np.ndarray:
        """Makes the input from a resized image.

        Args:
            image: (H, W, 3), uint8, BGR, resized.

        Returns:
            (3, *input_size), float32.

        Raises:
            ExportError: If the image is larger than the input.
        """
        height, width = image.shape[:2]
        if height > self.input_size[0] or width > self.input_size[1]:
            raise ExportError(
                f'the image is {width} x {height} pixels after it was resized, the input '
                f'{self.input_size[1]} x {self.input_size[0]}: export with a --size in which '
                'upright and wide images fit, such as 640 640, or choose another image'
            )
        canvas = np.empty((*self.input_size, 3), np.float32)
        canvas[:] = self.pad_value
        canvas[:height, :width] = image[..., ::-1] if self.channel_order == 'RGB' else image
        return np.ascontiguousarray(
            ((canvas - np.float32(self.mean)) / np.float32(self.std)).transpose(2, 0, 1)
        )
