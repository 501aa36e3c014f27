"""Finds a config's detector, the levels of its backbone, and settings that prevent a swap."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from reprlib import repr as shorten
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict

from hadaptive_runtime.errors import describe_error

from ..utils.configs import KeyPath, type_name, walk
from .edits import format_path, get_at
from .errors import SwapError

# The old backbone runs once on an image with this side in pixels.
_PROBE = 128
_IMAGE_CHANNELS = 3


@dataclass(frozen=True)
class Level:
    """An output of a backbone: its number of channels, and its stride in pixels of the input."""

    channels: int
    stride: int


@dataclass(frozen=True)
class _Refusal:
    """A key that prevents a swap of the backbone, if it exists (or has the given value).

    The reason may contain ``{where}``, the path of the detector, and the types ``{model}``,
    ``{backbone}`` and ``{neck}``.
    """

    key: str
    reason: str
    value: str | None = None


_TRACKER = (
    'model.type={model}: a tracker on videos; replace the backbone in the config of its detector'
)
_OF_MODELS = (
    _Refusal('data_preprocessor.type', _TRACKER, 'TrackDataPreprocessor'),
    _Refusal('tracker', _TRACKER),
    _Refusal(
        'data_preprocessor.type',
        'model.type={model}: it recognises persons and detects nothing',
        'ReIDDataPreprocessor',
    ),
    _Refusal(
        'language_model',
        'model.language_model: {model} reads texts; its language model must be downloaded, so '
        'that nothing could be tried',
    ),
)
_OF_DETECTORS = (
    _Refusal(
        'backbone.num_branch',
        '{where}.backbone.num_branch: {model} needs the branches of {backbone}, which are the '
        'method itself',
    ),
    _Refusal(
        'neck.rfp_backbone',
        '{where}.neck.rfp_backbone: {neck} runs the backbone several times, with features that '
        'only DetectoRS_ResNet takes in',
    ),
)

_DICT = (dict, type(None))
_LIST = (list, tuple, type(None))
# The types of the settings that the rules read. * stands for each key.
_TYPES_IN_CONFIGS = (
    ('model', (dict,)),
    ('model.data_preprocessor', _DICT),
    ('model.detector', (dict,)),
    ('custom_imports', _DICT),
    ('custom_imports.imports', (*_LIST, str)),
    ('custom_imports.imports.*', (str,)),
    ('optim_wrapper', _DICT),
    ('optim_wrapper.constructor', (str, type(None))),
    ('optim_wrapper.paramwise_cfg', _DICT),
    ('optim_wrapper.paramwise_cfg.custom_keys', _DICT),
    ('optim_wrapper.paramwise_cfg.custom_keys.*', (dict,)),
    ('optim_wrapper.paramwise_cfg.custom_keys.*.lr_mult', (Real,)),
)
_TYPES_IN_DETECTORS = (
    ('backbone.norm_cfg', _DICT),
    ('neck', (dict, *_LIST)),
    ('roi_head', _DICT),
    ('bbox_head', (dict, *_LIST)),
)


def find_detector(config: Config) -> KeyPath:
    """Finds the detector whose backbone can be replaced. It may be inside of another model.

    Args:
        config: A config of MMDetection.

    Returns:
        The path of its keys.

    Raises:
        SwapError: If there is none, or if a key has a type that MMDetection does not accept.
    """
    model = config.get('model')
    if not model:
        raise SwapError('model: the config describes none')
    _check_types(config, (), _TYPES_IN_CONFIGS)
    where: KeyPath = ('model', 'detector') if 'detector' in model else ('model',)
    detector = get_at(config, where)
    prefix = format_path(where)
    kind = model.get('type')
    _refuse(model, _OF_MODELS, model=kind)
    backbone = detector.get('backbone')
    if not isinstance(backbone, dict):
        raise SwapError(f'{prefix}.backbone: {kind} has no backbone')
    if 'type' not in backbone:
        raise SwapError(f"{prefix}.backbone.type: {kind} builds it outside MMDetection's registry")
    _check_types(detector, where, _TYPES_IN_DETECTORS)
    channels = backbone.get('in_channels', _IMAGE_CHANNELS)
    if channels != _IMAGE_CHANNELS:
        raise SwapError(
            f'{prefix}.backbone.in_channels={shorten(channels)}: Hadaptive-Net takes images of '
            f'{_IMAGE_CHANNELS} channels. Load the images in color (a gray one gets three equal '
            f'channels), and give the old backbone in_channels={_IMAGE_CHANNELS} first'
        )
    neck = detector.get('neck')
    _refuse(
        detector,
        _OF_DETECTORS,
        where=prefix,
        model=kind,
        backbone=backbone.type,
        neck=neck.get('type') if isinstance(neck, dict) else None,
    )
    return where


def examine_backbone(detector: ConfigDict, prefix: str) -> tuple[list[Level], list[str]]:
    """Finds the outputs of the old backbone by a run.

    Args:
        detector: The config of the detector.
        prefix: The name of the detector in messages.

    Returns:
        The levels of its outputs, and the names of its parameters in the detector. If it cannot
        run, for example because its package is missing, the levels are those that the neck expects,
        and there are no names.

    Raises:
        SwapError: If the outputs are not feature maps, or if they are unknown.
    """
    backbone = copy.deepcopy(detector.backbone)
    backbone.pop('init_cfg', None)
    backbone.pop('pretrained', None)
    try:
        net = MODELS.build(backbone)
        net.eval()
        with torch.no_grad():
            outputs = net(torch.zeros(1, 3, _PROBE, _PROBE))
    # The old backbone may raise any error. It need not run, because it is replaced.
    except Exception as error:
        return _guess_levels(detector, prefix, error), []
    name = f'{prefix}.backbone.type={backbone.type}'
    maps = outputs if isinstance(outputs, (list, tuple)) else ()
    if not maps or not all(isinstance(x, torch.Tensor) and x.ndim == 4 for x in maps):
        raise SwapError(
            f'{name}: it gives {_describe(outputs)}; a detector needs a tuple of feature maps of '
            'shape (B, C, H, W)'
        )
    levels = [Level(x.shape[1], round(_PROBE / x.shape[-1])) for x in maps]
    strides = [level.stride for level in levels]
    if len(set(strides)) > 1 and strides != sorted(set(strides)):
        raise SwapError(
            f'{name}: its maps have the strides {strides}; Hadaptive-Net gives each stride once, '
            'in rising order'
        )
    return levels, [f'backbone.{parameter}' for parameter, _ in net.named_parameters()]


def _refuse(node: ConfigDict, refusals: Sequence[_Refusal], **fields: Any) -> None:
    for refusal in refusals:
        for _, value in _select(node, refusal.key.split('.')):
            if refusal.value in (None, type_name(value)):
                raise SwapError(refusal.reason.format(**fields))


def _check_types(node: Any, path: KeyPath, types: Sequence[tuple[str, tuple[type, ...]]]) -> None:
    for pattern, allowed in types:
        for keys, value in _select(node, pattern.split('.')):
            if not isinstance(value, allowed):
                names = ', '.join(kind.__name__.replace('NoneType', 'None') for kind in allowed)
                raise SwapError(
                    f'{format_path((*path, *keys))} must be of type {names}, got {shorten(value)}'
                )


def _select(node: Any, pattern: Sequence[str], path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yields the existing values at a pattern of keys."""
    if not pattern:
        yield path, node
        return
    children: Any = ()
    if pattern[0] == '*' and isinstance(node, (list, tuple)):
        children = enumerate(node)
    elif pattern[0] == '*' and isinstance(node, dict):
        children = node.items()
    elif isinstance(node, (dict, Config)) and node.get(pattern[0], ...) is not ...:
        children = [(pattern[0], node[pattern[0]])]
    for key, child in children:
        yield from _select(child, pattern[1:], (*path, key))


def _guess_levels(detector: ConfigDict, prefix: str, error: Exception) -> list[Level]:
    """Returns the levels by the neck. Strides double from the first anchors' stride."""
    neck = detector.get('neck')
    neck = neck if isinstance(neck, dict) else {}
    channels, start = neck.get('in_channels'), neck.get('start_level', 0)
    heads = [detector[key] for key in ('rpn_head', 'bbox_head') if key in detector]
    strides = [
        _first(node['strides'])
        for head in heads
        for _, node in walk(head)
        if node.get('strides') and node is not head
    ]
    numbers = [*channels, *strides[:1]] if isinstance(channels, (list, tuple)) else []
    if (
        not channels
        or not strides
        or not all(isinstance(number, int) and number > 0 for number in numbers)
        or start not in range(8)
    ):
        raise SwapError(
            f'{prefix}.backbone.type={detector.backbone.type}: it cannot be built here '
            f'({describe_error(error)}), and no neck tells what comes out of it'
        )
    return [Level(c, (strides[0] >> start) << i) for i, c in enumerate(channels)]


def _first(value: Any) -> Any:
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return value


def _describe(outputs: Any) -> str:
    if isinstance(outputs, torch.Tensor):
        return f'a tensor of shape {tuple(outputs.shape)}'
    if isinstance(outputs, (list, tuple)):
        return f'a {type(outputs).__name__} of [{", ".join(map(_describe, outputs))}]'
    return f'a {type(outputs).__name__}'
