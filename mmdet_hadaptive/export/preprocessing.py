"""Reads a config's preprocessing for the metadata of exported models."""

from collections.abc import Sequence
from math import ceil

import numpy as np
from mmengine.config import Config, ConfigDict

from hadaptive_runtime import ExportError, Preprocessing

from ..utils.configs import find_pipelines, type_name

# A test pipeline may have these transforms. Others would change images in a way that the metadata
# cannot describe.
_DESCRIBED = {'LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs', 'Resize', 'Pad'}

# These keys say how images are read, resized and padded. Other transforms do not have them.
_DESCRIBED_VALUES = dict(
    color_type='color', interpolation='bilinear', backend='cv2', padding_mode='constant'
)


def read_preprocessing(config: Config) -> Preprocessing:
    """Reads the test pipeline and the data preprocessor of a config.

    Args:
        config: A detector's config.

    Returns:
        The preprocessing by both.

    Raises:
        ExportError: If this class cannot describe it.
    """
    pipeline = find_test_pipeline(config)
    names = [type_name(transform['type']) for transform in pipeline]
    others = [name for name in names if name not in _DESCRIBED]
    if others:
        raise ExportError(
            f'the test pipeline has {", ".join(others)}, which the metadata of an '
            f'exported model cannot describe: use {", ".join(sorted(_DESCRIBED))} only, and '
            'normalise in model.data_preprocessor'
        )
    for name, transform in zip(names, pipeline, strict=True):
        for key, described in _DESCRIBED_VALUES.items():
            if transform.get(key, described) != described:
                raise ExportError(
                    f'{name} of the test pipeline has {key}={transform[key]!r}, which '
                    f'the metadata of an exported model cannot describe: use {described!r}'
                )
    width, height = _resize(pipeline)['scale']
    if 'Pad' in names[: names.index('Resize')]:
        raise ExportError(
            'the test pipeline pads before it resizes, which the metadata of an exported model '
            'cannot describe: put Pad after Resize'
        )
    settings = config.model.get('data_preprocessor') or config.get('data_preprocessor', {})
    kind = type_name(settings.get('type'))
    if kind != 'DetDataPreprocessor':
        raise ExportError(
            f'the data preprocessor is {kind}; only DetDataPreprocessor can be '
            'described in the metadata of an exported model'
        )
    mean = _per_channel(settings.get('mean') or 0)
    std = _per_channel(settings.get('std') or 1)
    to_rgb = settings.get('bgr_to_rgb', False) or settings.get('rgb_to_bgr', False)
    input_size, pad_value = (height, width), None
    for name, transform in zip(names, pipeline, strict=True):
        if name == 'Pad':
            input_size, pad_value = _padded(transform, input_size)
    if pad_value is not None and to_rgb:
        pad_value = pad_value[::-1]
    divisor = settings.get('pad_size_divisor', 1)
    rounded = tuple(ceil(length / divisor) * divisor for length in input_size)
    # The data preprocessor pads after the normalisation.
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
    """Changes the size to which a config's test pipeline resizes and pads.

    Args:
        config: The config. It is changed.
        height: The height in pixels.
        width: The width in pixels.

    Raises:
        ExportError: If a side is below 1, if there is no pipeline, or if it does not have one
            Resize with one scale.
    """
    if min(height, width) < 1:
        raise ExportError(f'the size must be at least 1 x 1 pixels, got {height} x {width}')
    find_test_pipeline(config)
    for pipeline in find_pipelines(config.test_dataloader):
        _resize(pipeline)['scale'] = (width, height)
        for transform in pipeline:
            if type_name(transform['type']) == 'Pad' and transform.get('size') is not None:
                transform['size'] = (width, height)


def find_test_pipeline(config: Config) -> list[ConfigDict]:
    """Finds the pipeline of the test data.

    Args:
        config: A detector's config.

    Returns:
        The pipeline. If there are several data sets, they must have the same one.

    Raises:
        ExportError: If there is none, or if the data sets have different ones.
    """
    if not config.get('test_dataloader'):
        raise ExportError(
            'the config has no test_dataloader, whose pipeline says how images are prepared: use '
            'the config of the training'
        )
    pipelines = find_pipelines(config.test_dataloader)
    if not pipelines or any(pipeline != pipelines[0] for pipeline in pipelines):
        raise ExportError(
            f'the data sets of test_dataloader have {len(pipelines)} pipelines that are not the '
            'same; an exported model has one: give all of them the same, or name one data set'
        )
    return pipelines[0]


def _resize(pipeline: list[ConfigDict]) -> ConfigDict:
    found = [t for t in pipeline if type_name(t['type']) == 'Resize']
    if len(found) != 1 or np.shape(found[0].get('scale')) != (2,):
        raise ExportError(
            f'the test pipeline must have one Resize with scale=(width, height), got {found}'
        )
    return found[0]


def _padded(pad: ConfigDict, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[float, ...]]:
    """Returns the size after a Pad, and its value per channel."""
    value = pad.get('pad_val', 0)
    value = value.get('img', 0) if isinstance(value, dict) else value
    value = _per_channel(value)
    if pad.get('size') is not None:
        size = tuple(pad['size'])[::-1]
    elif pad.get('pad_to_square'):
        size = (max(size),) * 2
    divisor = pad.get('size_divisor') or 1
    return tuple(ceil(length / divisor) * divisor for length in size), value


def _per_channel(value: float | Sequence[float]) -> tuple[float, ...]:
    """Returns one value or three as three."""
    values = tuple(map(float, value)) if isinstance(value, (list, tuple)) else (float(value),)
    return values * 3 if len(values) == 1 else values
