"""How a config prepares images, as the metadata of exported models describe it."""

from math import ceil

import numpy as np
from mmengine.config import Config, ConfigDict

from hadaptive_runtime import ExportError, Preprocessing

# What a test pipeline may hold; anything else would change images in a way that is not described.
_DESCRIBED = {'LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs', 'Resize', 'Pad'}

# How images are resized and padded; of other transforms these keys have no meaning.
_DESCRIBED_VALUES = dict(interpolation='bilinear', backend='cv2', padding_mode='constant')


def read_preprocessing(config: Config) -> Preprocessing:
    """Reads the test pipeline and the data preprocessor of a config.

    Args:
        config: A detector's.

    Returns:
        What both do to an image.

    Raises:
        ExportError: If they do something that cannot be described in this way.
    """
    pipeline = _test_pipeline(config)
    others = [t['type'] for t in pipeline if t['type'] not in _DESCRIBED]
    if others:
        raise ExportError(
            f'the test pipeline has {", ".join(map(str, others))}, which the metadata of an '
            f'exported model cannot describe: use {", ".join(sorted(_DESCRIBED))} only, and '
            'normalise in model.data_preprocessor'
        )
    for transform in pipeline:
        for key, described in _DESCRIBED_VALUES.items():
            if transform.get(key, described) != described:
                raise ExportError(
                    f'{transform["type"]} of the test pipeline has {key}={transform[key]!r}, which '
                    f'the metadata of an exported model cannot describe: use {described!r}'
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
    return Preprocessing(
        input_size=rounded,
        resize=(height, width),
        keep_ratio=_resize(pipeline).get('keep_ratio', False),
        channel_order='RGB' if to_rgb else 'BGR',
        mean=mean,
        std=std,
        pad_value=pad_value or pad_after,
    )


def set_input_size(config: Config, height: int, width: int) -> None:
    """Changes what the test pipeline of a config resizes and pads to.

    Args:
        config: Is changed.
        height: In pixels.
        width: In pixels.

    Raises:
        ExportError: If there is no pipeline, or it does not have one Resize with one scale.
    """
    pipeline = _test_pipeline(config)
    _resize(pipeline)['scale'] = (width, height)
    for transform in pipeline:
        if transform['type'] == 'Pad' and transform.get('size') is not None:
            transform['size'] = (width, height)


def _test_pipeline(config: Config) -> list[ConfigDict]:
    if not config.get('test_dataloader'):
        raise ExportError(
            'the config has no test_dataloader, whose pipeline says how images are prepared: use '
            'the config of the training'
        )
    return config.test_dataloader.dataset.pipeline


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
