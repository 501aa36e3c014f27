"""From an image to the input of an exported model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict

from .errors import ExportError

# What a test pipeline may hold; anything else would change images in a way that is not described.
_DESCRIBED = {'LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs', 'Resize', 'Pad'}


@dataclass(frozen=True)
class Preprocessing:
    """How an image, as OpenCV reads it, becomes the input of a model.

    It is resized, its channels are put in order, it is laid into the top left corner of a canvas
    of ``pad_value``, and the whole is normalised: (canvas - mean) / std.

    Attributes:
        input_size: Height and width of the canvas, in pixels.
        resize: Height and width that the image is resized to, in pixels; with ``keep_ratio``, the
            limits that it is scaled up or down to fit in.
        keep_ratio: Whether the image keeps its ratio of width to height.
        channel_order: 'BGR' or 'RGB': what the model expects.
        mean: Per channel of the model's input, in pixel values (0 to 255).
        std: Likewise.
        pad_value: Likewise, before normalisation.
    """

    input_size: tuple[int, int]
    resize: tuple[int, int]
    keep_ratio: bool
    channel_order: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad_value: tuple[float, ...]

    @classmethod
    def from_config(cls, config: Config) -> 'Preprocessing':
        """Reads the test pipeline and the data preprocessor of a config.

        Args:
            config: A detector's.

        Returns:
            What both do to an image.

        Raises:
            ExportError: If they do something that cannot be described in this way.
        """
        pipeline = config.test_dataloader.dataset.pipeline
        others = [t['type'] for t in pipeline if t['type'] not in _DESCRIBED]
        if others:
            raise ExportError(
                f'the test pipeline has {", ".join(map(str, others))}, which the metadata of an '
                f'exported model cannot describe: use {", ".join(sorted(_DESCRIBED))} only, and '
                'normalise in model.data_preprocessor'
            )
        width, height = _resize(pipeline)['scale']
        settings = config.model.get('data_preprocessor') or config.get('data_preprocessor', {})
        if settings.get('type') != 'DetDataPreprocessor':
            raise ExportError(
                f'the data preprocessor is {settings.get("type")}; only DetDataPreprocessor can be '
                'described in the metadata of an exported model'
            )
        mean = tuple(map(float, settings.get('mean') or (0, 0, 0)))
        std = tuple(map(float, settings.get('std') or (1, 1, 1)))
        to_rgb = settings.get('bgr_to_rgb', False) or settings.get('rgb_to_bgr', False)
        input_size, pad_value = (height, width), None
        for transform in pipeline:
            if transform['type'] == 'Pad':
                input_size, pad_value = _padded(transform, input_size)
        if pad_value is not None and to_rgb:
            pad_value = pad_value[::-1]
        divisor = settings.get('pad_size_divisor', 1)
        rounded = tuple(ceil(length / divisor) * divisor for length in input_size)
        # The preprocessor pads what is normalised already.
        after = settings.get('pad_value', 0)
        pad_after = tuple(m + s * after for m, s in zip(mean, std, strict=True))
        if pad_value is not None and rounded != input_size and pad_value != pad_after:
            raise ExportError(
                f'the test pipeline pads with {pad_value} and the data preprocessor with '
                f'{pad_after}: let Pad have a size_divisor of {divisor}'
            )
        return cls(
            input_size=rounded,
            resize=(height, width),
            keep_ratio=_resize(pipeline).get('keep_ratio', False),
            channel_order='RGB' if to_rgb else 'BGR',
            mean=mean,
            std=std,
            pad_value=pad_value or pad_after,
        )

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> 'Preprocessing':
        """Takes what :meth:`metadata` gave, also if it was written in JSON, from all metadata."""
        values = {name: metadata[name] for name in cls.__dataclass_fields__}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def metadata(self) -> dict[str, Any]:
        """The attributes."""
        return asdict(self)

    def outside(self) -> 'Preprocessing':
        """What is left to do for a model that orders and normalises the channels itself."""
        pad_value = self.pad_value[::-1] if self.channel_order == 'RGB' else self.pad_value
        return replace(
            self, channel_order='BGR', mean=(0.0,) * 3, std=(1.0,) * 3, pad_value=pad_value
        )

    def canvas(self, image: np.ndarray) -> np.ndarray:
        """Does all but the resizing.

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
                f'the image is {width} x {height} pixels after the test pipeline, the input '
                f'{self.input_size[1]} x {self.input_size[0]}: export with a --size in which '
                'upright and wide images fit, such as 640 640, or choose another image'
            )
        canvas = np.empty((*self.input_size, 3), np.float32)
        canvas[:] = self.pad_value
        canvas[:height, :width] = image[..., ::-1] if self.channel_order == 'RGB' else image
        return np.ascontiguousarray(
            ((canvas - np.float32(self.mean)) / np.float32(self.std)).transpose(2, 0, 1)
        )


def set_input_size(config: Config, height: int, width: int) -> None:
    """Changes what the test pipeline of a config resizes and pads to.

    Args:
        config: Is changed.
        height: In pixels.
        width: In pixels.

    Raises:
        ExportError: If the pipeline does not have one Resize with one scale.
    """
    pipeline = config.test_dataloader.dataset.pipeline
    _resize(pipeline)['scale'] = (width, height)
    for transform in pipeline:
        if transform['type'] == 'Pad' and transform.get('size') is not None:
            transform['size'] = (width, height)


def _resize(pipeline: list[ConfigDict]) -> ConfigDict:
    found = [t for t in pipeline if t['type'] == 'Resize']
    if len(found) != 1 or np.shape(found[0].get('scale')) != (2,):
        raise ExportError(
            f'the test pipeline must have one Resize with scale=(width, height), got {found}'
        )
    return found[0]


def _padded(pad: ConfigDict, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[float, ...]]:
    """The size after a Pad, and its value per channel."""
    value = pad.get('pad_val', 0)
    value = value.get('img', 0) if isinstance(value, dict) else value
    value = tuple(map(float, value)) if isinstance(value, (list, tuple)) else (float(value),) * 3
    if pad.get('size') is not None:
        size = tuple(pad['size'])[::-1]
    elif pad.get('pad_to_square'):
        size = (max(size),) * 2
    divisor = pad.get('size_divisor') or 1
    return tuple(ceil(length / divisor) * divisor for length in size), value
