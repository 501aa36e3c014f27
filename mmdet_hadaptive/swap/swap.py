"""Exchanges the backbone in a config of MMDetection, and proves that the result works."""

import copy
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile, gettempdir
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from mmengine.utils import get_installed_path
from torch import nn
from yapf.yapflib.yapf_api import FormatCode

from ..analysis.costs import count_macs
from ..backbones import ARCHITECTURES, HadaptiveNet

# What torchvision's weights expect; the authors of Hadaptive-Net train with the same.
_NORMALISATION = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
# The image on which the old backbone shows its outputs.
_PROBE = 128


class SwapError(ValueError):
    """The backbone of a config cannot be exchanged; the message names the key and the reason."""


@dataclass(frozen=True)
class Edit:
    """One key that a config changes.

    Attributes:
        path: The keys that lead to it; a number is a place in a list.
        value: The new value.
        comment: Why.
    """

    path: tuple[str | int, ...]
    value: Any
    comment: str


@dataclass(frozen=True)
class Level:
    """An output of a backbone: its channels, and its stride in pixels of the input."""

    channels: int
    stride: int


@dataclass(frozen=True)
class Costs:
    """Parameters (trainable or not) and multiply-accumulates of a detector and its backbone."""

    parameters: int
    macs: int
    backbone_parameters: int
    backbone_macs: int


@dataclass(frozen=True)
class Proof:
    """What one training step and one prediction on random images gave.

    Attributes:
        loss: The sum of the losses.
        gradient: The largest gradient of the backbone's first convolution.
        detections: Instances that the prediction returned.
        costs: Of the network, for one image.
    """

    loss: float
    gradient: float
    detections: int
    costs: Costs


def swap_backbone(
    source: str, out: Path, arch: str = 'small', size: int = 256
) -> tuple[Costs | str, Proof]:
    """Writes a thin config that puts Hadaptive-Net into a detector.

    Nothing is written unless the new detector is built, learns and predicts.

    Args:
        source: A config file, or one of MMDetection's as 'mmdet::folder/name.py'.
        out: The file to write.
        arch: 'small', 'medium' or 'large'.
        size: Edge in pixels of the random images that prove it; a multiple of 32.

    Returns:
        The costs before, or why they cannot be known, and the proof for the new config.

    Raises:
        SwapError: If the backbone cannot be exchanged.
        ValueError: If an argument has a value outside its limits.
        RuntimeError: If the new detector's loss, gradient or prediction is not finite.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f'arch must be one of {sorted(ARCHITECTURES)}, got {arch!r}')
    if size < 64 or size % 32:
        raise ValueError(f'size must be a multiple of 32 and at least 64, got {size}')
    if not out.parent.is_dir():
        raise ValueError(f'{out} cannot be written, {out.parent} is not a folder: make it first')
    base = _base(source, out)
    config = load_source(base, out.parent)
    text = render_config(base, plan_swap(config, arch))
    proof = prove(_load(text, out.parent), size)
    try:
        before: Costs | str = _costs(build_for_proof(config), config, size)
    # Whatever keeps the old detector from running here says nothing about the new one.
    except Exception as error:
        before = f'{type(error).__name__}: {error}'.splitlines()[0]
    out.write_text(text)
    return before, proof


def plan_swap(config: Config, arch: str = 'small') -> list[Edit]:
    """Finds what must change in a config when HadaptiveNet replaces its backbone.

    Args:
        config: A config of an MMDetection detector.
        arch: 'small', 'medium' or 'large'.

    Returns:
        The edits, the backbone's first among those of the model.

    Raises:
        SwapError: If the backbone cannot be exchanged.
    """
    init_default_scope('mmdet')
    where = find_detector(config)
    detector = _at(config, where)
    old = detector.backbone
    levels, old_names = _examine_backbone(detector, '.'.join(where))
    stacked = len({level.stride for level in levels}) < len(levels)
    strides = [32] if stacked else [level.stride for level in levels]
    indices = _indices_of(strides, arch)
    net = HadaptiveNet(arch, out_indices=indices)

    backbone: dict[str, Any] = dict(
        _delete_=True, type='HadaptiveNet', arch=arch, out_indices=indices
    )
    norm = old.get('norm_cfg') or {}
    if norm.get('type') in ('BN', 'SyncBN') and norm.get('requires_grad', True):
        norm = {
            key: value for key, value in norm.items() if key not in ('requires_grad', '_scope_')
        }
        if norm != dict(type='BN'):
            backbone['norm_cfg'] = dict(norm)
    edits = [
        _imports(config),
        Edit(
            (*where, 'backbone'),
            backbone,
            f'Strides {", ".join(map(str, strides))}. It starts without weights, so that nothing '
            'of it is frozen.',
        ),
    ]
    if stacked:
        edits += _decoder_edits(detector, where, levels, net)
    elif detector.get('neck'):
        edits += _neck_edits(detector, where, levels, net)
    else:
        edits += _head_edits(detector, where, levels, net)
    edits += _preprocessor_edits(config)
    edits += _weight_edits(config, where)
    edits += _optimizer_edits(config, edits, old_names, net)
    return edits


def render_config(base: str, edits: Sequence[Edit]) -> str:
    """Writes edits as a config file.

    Args:
        base: What the config inherits.
        edits: What it changes.

    Returns:
        The text of the file, formatted.
    """
    lines = [f'_base_ = {base!r}']
    tree: dict[str, Any] = {}
    for edit in edits:
        path = edit.path
        value: Any = _literal(edit.value)
        place = next((i for i, key in enumerate(path) if isinstance(key, int)), None)
        if place is not None:
            # A list in a config replaces the inherited one; its other entries must stay.
            name = str(path[place - 1])
            steps = ''.join(
                f'[{key!r}]' if isinstance(key, int) else f'.{key}' for key in path[place:]
            )
            lines += ['', f'{name} = _base_.{".".join(map(str, path[:place]))}']
            lines += [*_comment(edit.comment), f'{name}{steps} = {value}']
            path, value, edit = path[:place], name, Edit(path, None, '')
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = (value, edit.comment)
    for key, node in tree.items():
        lines.append('')
        if isinstance(node, tuple):
            lines += [*_comment(node[1]), f'{key} = {node[0]}']
        else:
            lines += [f'{key} = dict(', *_render(node), ')']
    style = dict(based_on_style='pep8', column_limit=100, dedent_closing_brackets=True)
    return FormatCode('\n'.join(lines) + '\n', style_config=style)[0]


def build_for_proof(config: Config) -> BaseModel:
    """Builds a detector with random weights, for small images on any device.

    Weights that would be downloaded, synchronised normalisation (which needs GPUs) and batch
    augmentations (which change the size of the images) are left out.

    Args:
        config: A config of a detector.

    Returns:
        The initialised detector.
    """
    init_default_scope('mmdet')
    model = copy.deepcopy(config.model)
    for node in _dicts(model):
        if isinstance(node.get('init_cfg'), dict) and node['init_cfg'].get('type') == 'Pretrained':
            node['init_cfg'] = None
        node.pop('pretrained', None)
        if node.get('batch_augments'):
            node['batch_augments'] = None
        if node.get('type') == 'MMSyncBN':
            node['type'] = 'BN'
        if (
            isinstance(node.get('teacher_config'), str)
            and not Path(node['teacher_config']).exists()
        ):
            # Given from the root of MMDetection's source.
            node['teacher_config'] = str(
                Path(get_installed_path('mmdet')) / '.mim' / node['teacher_config']
            )
        if 'teacher_ckpt' in node:
            node['teacher_ckpt'] = None
    detector = MODELS.build(model)
    # MMEngine logs every parameter.
    logging.disable(logging.INFO)
    try:
        detector.init_weights()
    finally:
        logging.disable(logging.NOTSET)
    return revert_sync_batchnorm(detector)


def prove(config: Config, size: int = 256) -> Proof:
    """Lets a detector learn from and predict on random images.

    Args:
        config: The config.
        size: Edge of the images in pixels.

    Returns:
        What came out.

    Raises:
        RuntimeError: If the loss, a prediction or the backbone's gradient is not finite, or no
            gradient reaches the backbone.
    """
    model = build_for_proof(config)
    batch = _random_batch(config, 2, size, training=True)
    model.train()
    # What MMEngine's runner tells the losses that change in the course of a training.
    MessageHub.get_current_instance().update_info_dict(dict(iter=0, epoch=0))
    if hasattr(model, 'set_epoch'):
        model.set_epoch(0)
    total, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
    if not torch.isfinite(total):
        raise RuntimeError(f'the loss on random images is {total.item()}')
    total.backward()
    trained = (p for p in _network(model).backbone.parameters() if p.requires_grad)
    gradient = next(trained).grad
    # By default that sets the gradients to None, and leaves the one taken here as it is.
    model.zero_grad()
    model.eval()
    with torch.no_grad():
        results = model.test_step(_random_batch(config, 1, size))
    detections = 0
    for result in results:
        instances = result.get('pred_instances', InstanceData())
        detections += len(instances)
        for key, value in instances.items():
            if isinstance(value, torch.Tensor) and not torch.isfinite(value.float()).all():
                raise RuntimeError(f'{key} of a prediction on random images are not finite')
    if gradient is None or not torch.isfinite(gradient).all() or not gradient.any():
        raise RuntimeError(f'the gradient of the first weight of the backbone is {gradient}')
    largest = gradient.abs().max().item()
    return Proof(total.item(), largest, detections, _costs(model, config, size))


def find_detector(config: Config) -> tuple[str, ...]:
    """Finds the detector, which may lie within another model, whose backbone can be exchanged.

    Args:
        config: A config of MMDetection.

    Returns:
        The keys that lead to it.

    Raises:
        SwapError: If there is none.
    """
    model = config.get('model')
    if not model:
        raise SwapError('model: the config describes none')
    kind = (model.get('data_preprocessor') or {}).get('type', '')
    if kind == 'TrackDataPreprocessor' or 'tracker' in model:
        raise SwapError(
            f'model.type={model.type}: a tracker on videos; exchange the backbone in the config '
            'of its detector'
        )
    if kind == 'ReIDDataPreprocessor':
        raise SwapError(f'model.type={model.type}: it recognises persons and detects nothing')
    if 'language_model' in model:
        raise SwapError(
            f'model.language_model: {model.type} reads texts; its language model must be '
            'downloaded, so that nothing could be proven'
        )
    where = ('model', 'detector') if 'detector' in model else ('model',)
    backbone = _at(config, where).get('backbone')
    name = '.'.join((*where, 'backbone'))
    if not isinstance(backbone, dict):
        raise SwapError(f'{name}: {model.type} has no backbone')
    if 'type' not in backbone:
        raise SwapError(f"{name}.type: {model.type} builds it outside MMDetection's registry")
    if 'num_branch' in backbone:
        raise SwapError(
            f'{name}.num_branch: {model.type} needs the branches of {backbone.type}, which are '
            'the method itself'
        )
    neck = _at(config, where).get('neck')
    if isinstance(neck, dict) and 'rfp_backbone' in neck:
        raise SwapError(
            f'{".".join(where)}.neck.rfp_backbone: {neck.type} runs the backbone several times, '
            'with features that only DetectoRS_ResNet takes in'
        )
    return where


def _examine_backbone(detector: ConfigDict, where: str) -> tuple[list[Level], list[str]]:
    """The old backbone's outputs and the names of its parameters (none if it is not here)."""
    backbone = copy.deepcopy(detector.backbone)
    backbone.pop('init_cfg', None)
    backbone.pop('pretrained', None)
    try:
        net = MODELS.build(backbone)
    # A backbone of a package that is missing: KeyError or ImportError, depending on the registry.
    except (ImportError, KeyError, AttributeError) as error:
        return _levels_of_the_neck(detector, where, error), []
    net.eval()
    with torch.no_grad():
        outputs = net(torch.zeros(1, 3, _PROBE, _PROBE))
    levels = [Level(x.shape[1], round(_PROBE / x.shape[-1])) for x in outputs]
    return levels, [f'backbone.{name}' for name, _ in net.named_parameters()]


def _levels_of_the_neck(detector: ConfigDict, where: str, error: Exception) -> list[Level]:
    """Levels of a backbone that cannot be built: strides double from that of the first anchors."""
    neck = detector.get('neck')
    heads = [detector[key] for key in ('rpn_head', 'bbox_head') if key in detector]
    strides = [
        node['strides']
        for head in heads
        for node in _dicts(head)
        if node.get('strides') and node is not head
    ]
    if not isinstance(neck, dict) or not isinstance(neck.get('in_channels'), list) or not strides:
        raise SwapError(
            f'{where}.backbone.type={detector.backbone.type}: it cannot be built here '
            f'({str(error).splitlines()[0]}), and no neck tells what comes out of it'
        )
    first = int(strides[0][0]) >> neck.get('start_level', 0)
    return [Level(c, first << i) for i, c in enumerate(neck.in_channels)]


def _indices_of(strides: Sequence[int], arch: str) -> tuple[int, ...]:
    stages = len(ARCHITECTURES[arch]['stages'])
    own = HadaptiveNet(arch, out_indices=range(stages)).out_strides
    missing = [stride for stride in strides if stride not in own]
    if missing:
        raise SwapError(
            f'backbone.out_indices: the backbone gives maps of stride {missing}, Hadaptive-Net '
            f'{arch} has {list(own)}'
            + ('; use --arch large' if missing == [64] and arch != 'large' else '')
        )
    return tuple(own.index(stride) for stride in strides)


def _neck_edits(
    detector: ConfigDict, where: tuple[str, ...], levels: list[Level], net: HadaptiveNet
) -> list[Edit]:
    several = not isinstance(detector.neck, dict)
    path: tuple[str | int, ...] = (*where, 'neck', 0) if several else (*where, 'neck')
    neck = detector.neck[0] if several else detector.neck
    found = _translate(neck.get('in_channels'), levels, net)
    if found is None:
        raise SwapError(
            f'{".".join(map(str, path))}.in_channels={neck.get("in_channels")}: not the channels '
            f'of the backbone, which are {[level.channels for level in levels]}'
        )
    edits = [Edit((*path, 'in_channels'), found, 'The channels of the new backbone.')]
    # SSD's neck hands the maps of the backbone on as they are.
    out = _translate(neck.get('out_channels'), levels, net) if neck.type == 'SSDNeck' else None
    if out is not None:
        why = 'The first maps come from the backbone unchanged.'
        edits.append(Edit((*path, 'out_channels'), out, why))
        edits.append(Edit((*where, 'bbox_head', 'in_channels'), out, why))
        if detector.bbox_head.type == 'SSDHead':
            why = 'SSDHead of mmdet 3.3.0 cannot predict; this is the same head, mended.'
            edits.append(Edit((*where, 'bbox_head', 'type'), 'SSDLiteHead', why))
    return edits


def _head_edits(
    detector: ConfigDict, where: tuple[str, ...], levels: list[Level], net: HadaptiveNet
) -> list[Edit]:
    """For heads that read the backbone directly."""
    old = [level.channels for level in levels]
    if 'shared_head' in detector.get('roi_head', {}):
        neck = dict(
            type='ChannelMapper',
            in_channels=list(net.out_channels),
            out_channels=old[-1],
            kernel_size=1,
            num_outs=len(old),
        )
        why = 'The shared head is a stage of the old network and fixed to its channels.'
        return [Edit((*where, 'neck'), neck, why)]
    edits = []
    for key in detector:
        if not key.endswith('head'):
            continue
        for path, node in _walk(detector[key], (*where, key)):
            # Behind several maps a single number is the width of something else.
            names = ['in_channels', *(['out_channels'] if 'roi_layer' in node else [])]
            for name in names:
                found = _translate(node.get(name), levels, net)
                if found is not None and (len(old) == 1 or isinstance(found, list)):
                    edits.append(Edit((*path, name), found, 'It reads the backbone directly.'))
    if not edits:
        raise SwapError(
            f'{".".join(where)}: there is no neck, and no head whose in_channels are those of '
            f'the backbone, {old}'
        )
    return edits


def _decoder_edits(
    detector: ConfigDict, where: tuple[str, ...], levels: list[Level], net: HadaptiveNet
) -> list[Edit]:
    """For stacked hourglasses, which encode and decode, while Hadaptive-Net only encodes."""
    if detector.get('neck') or 'num_feat_levels' not in detector.get('bbox_head', {}):
        raise SwapError(
            f'{".".join(where)}.backbone: {detector.backbone.type} gives several maps of stride '
            f'{levels[0].stride}, and nothing is known about what reads them'
        )
    steps = (net.out_strides[-1] // levels[0].stride).bit_length() - 1
    neck = dict(
        _delete_=True,
        type='CTResNetNeck',
        in_channels=net.out_channels[-1],
        num_deconv_filters=(levels[0].channels,) * steps,
        num_deconv_kernels=(4,) * steps,
        use_dcn=False,
    )
    return [
        Edit(
            (*where, 'neck'),
            neck,
            f'The old backbone encodes and decodes to stride {levels[0].stride}; here the neck '
            'decodes.',
        ),
        Edit((*where, 'bbox_head', 'num_feat_levels'), 1, 'One map in place of a stack.'),
    ]


def _preprocessor_edits(config: Config) -> list[Edit]:
    return [
        Edit((*path, key), value, 'The old constants belong to the old weights.')
        for path, node in _walk(config.model, ('model',))
        if path[-1] == 'data_preprocessor' and set(node.get('std') or ()) == {1.0}
        for key, value in _NORMALISATION.items()
    ]


def _weight_edits(config: Config, where: tuple[str, ...]) -> list[Edit]:
    """For weights of whole detectors, which hold those of the old backbone."""
    why = 'These weights are those of a detector with the old backbone.'
    edits = []
    if config.get('load_from'):
        edits.append(Edit(('load_from',), None, why))
    for path in {('model',), where}:
        init = _at(config, path).get('init_cfg') or {}
        if isinstance(init, dict) and init.get('type') == 'Pretrained':
            edits.append(Edit((*path, 'init_cfg'), None, why))
    return edits


def _optimizer_edits(
    config: Config, edits: list[Edit], old_names: list[str], net: HadaptiveNet
) -> list[Edit]:
    wrapper = config.get('optim_wrapper') or {}
    constructor = wrapper.get('constructor')
    if constructor == 'LearningRateDecayOptimizerConstructor':
        why = 'Learning rates by layer are made for ConvNeXt.'
        return [
            Edit(('optim_wrapper', 'constructor'), 'DefaultOptimWrapperConstructor', why),
            Edit(('optim_wrapper', 'paramwise_cfg'), None, why),
        ]
    keys = dict((wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {})
    place = ('optim_wrapper', 'paramwise_cfg', 'custom_keys')
    new_names = [f'backbone.{name}' for name, _ in net.named_parameters()]
    stale = {
        key
        for key in keys
        if not any(key in name for name in new_names)
        and (key.startswith('backbone.') or any(key in name for name in old_names))
    }
    if stale:
        swapped = copy.deepcopy(config)
        for edit in edits:
            parent = _at(swapped, edit.path[:-1], create=True)
            value = copy.deepcopy(edit.value)
            if isinstance(value, dict):
                value.pop('_delete_', None)
            parent[edit.path[-1]] = value
        names = [name for name, _ in build_for_proof(swapped).named_parameters()]
        stale = {key for key in stale if not any(key in name for name in names)}
    # A low rate protects weights that are trained already; these are not.
    slow = {
        key
        for key in keys
        if key.split('.')[0] == 'backbone' and key not in stale and keys[key].get('lr_mult', 1) < 1
    }
    if stale:
        rest = {
            key: dict(value) | (dict(lr_mult=1.0) if key in slow else {})
            for key, value in keys.items()
            if key not in stale
        }
        why = f'Layers of the old backbone are gone: {", ".join(sorted(stale))[:300]}.'
        return [Edit(place, dict(_delete_=True, **rest), why)]
    why = 'A low rate is for weights that are trained already.'
    return [Edit((*place, key, 'lr_mult'), 1.0, why) for key in slow]


def _imports(config: Config) -> Edit:
    imports = list((config.get('custom_imports') or {}).get('imports') or [])
    rest = {key: value for key, value in config.model.items() if key != 'backbone'}
    needed = 'mmpretrain.' in repr(rest)
    kept = [name for name in imports if needed or not name.startswith('mmpretrain')]
    value = dict(imports=[*kept, 'mmdet_hadaptive'], allow_failed_imports=False)
    return Edit(('custom_imports',), value, '')


def _translate(value: Any, levels: list[Level], net: HadaptiveNet) -> Any:
    """Old channels as new ones, or None if they are not the backbone's."""
    old, new = [level.channels for level in levels], list(net.out_channels)
    if isinstance(value, int):
        return new[old.index(value)] if value in old else None
    if not isinstance(value, (list, tuple)):
        return None
    given = list(value)
    if given[: len(old)] == old:
        return new + given[len(old) :]
    # YOLOv3 counts from the smallest map.
    return new[::-1] if given == old[::-1] else None


def _costs(model: BaseModel, config: Config, size: int) -> Costs:
    # PyTorch's counter stumbles over views of weights that require gradients.
    model.eval()
    model.requires_grad_(False)
    batch = _random_batch(config, 1, size)
    macs = count_macs(lambda: model.test_step(batch))
    network = _network(model)
    image = torch.zeros(1, 3, size, size)
    return Costs(
        _parameters(network),
        macs,
        _parameters(network.backbone),
        count_macs(lambda: network.backbone(image)),
    )


def _network(model: BaseModel) -> BaseModel:
    """The network that learns, of a semi-supervised detector one of two."""
    return model.student if hasattr(model, 'student') else model


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _random_batch(config: Config, number: int, size: int, training: bool = False) -> dict[str, Any]:
    """Random images with boxes, masks, a semantic map and proposals, before preprocessing."""
    nodes = list(_dicts(config._cfg_dict))
    rescale = [node['scale_factor'] for node in nodes if node.get('type') == 'SegRescale']
    panoptic = any(node.get('type') == 'LoadPanopticAnnotations' for node in nodes)
    batch = demo_mm_inputs(
        number,
        (3, size, size),
        num_items=[4] * number,
        num_classes=2,
        # What the config does not load, its detector may not expect.
        with_mask=panoptic or any(node.get('with_mask') for node in nodes),
        with_semantic=panoptic or any(node.get('with_seg') for node in nodes),
        sem_seg_output_strides=round(1 / rescale[0]) if rescale else 1,
    )
    for sample in batch['data_samples']:
        # Every detector has a class 0.
        sample.gt_instances.labels.zero_()
        # Fast R-CNN has no network that proposes boxes.
        if not any('rpn_head' in node for node in nodes):
            sample.proposals = InstanceData(
                bboxes=sample.gt_instances.bboxes.clone(), scores=torch.ones(4)
            )
        sample.set_metainfo(dict(homography_matrix=np.eye(3, dtype=np.float32)))
    if training and config.model.get('data_preprocessor', {}).get('type') == (
        'MultiBranchDataPreprocessor'
    ):
        branches = ('sup', 'unsup_teacher', 'unsup_student')
        return {key: {b: copy.deepcopy(batch[key]) for b in branches} for key in batch}
    return batch


def _base(source: str, out: Path) -> str:
    if '::' in source:
        try:
            Config.fromstring(f'_base_ = {source!r}', '.py')
        except FileNotFoundError as error:
            raise SwapError(f'{source}: {error}') from None
        except ImportError:
            # Imports are the concern of what is built from it.
            pass
        return source
    path = Path(source)
    if not path.is_file():
        raise SwapError(
            f"{source}: no such file; MMDetection's own are named mmdet::folder/name.py"
        )
    if Config._is_lazy_import(source):
        raise SwapError(
            f'{source}: a config in the pure Python style, which text configs cannot inherit'
        )
    return Path(os.path.relpath(path.resolve(), out.parent.resolve())).as_posix()


def load_source(base: str, folder: Path | None = None) -> Config:
    """Loads a config of which only the description matters, without what it imports.

    Args:
        base: The config as another one in the folder names it in ``_base_``.
        folder: The folder; needed only if the name is relative.

    Returns:
        The config.
    """
    return _load(f'_base_ = {base!r}\n', folder or Path(gettempdir()), imports=False)


def _load(text: str, folder: Path, imports: bool = True) -> Config:
    """Loads a config as if it lay in a folder."""
    with NamedTemporaryFile('w', dir=folder, prefix='swap_', suffix='.py') as file:
        file.write(text)
        file.flush()
        return Config.fromfile(file.name, import_custom_modules=imports)


def _at(node: Any, path: Sequence[str | int], create: bool = False) -> Any:
    for key in path:
        if create and isinstance(node, dict) and node.get(key) is None:
            node[key] = {}
        node = node[key]
    return node


def _walk(
    node: Any, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """Every dict below a node, with its path."""
    if isinstance(node, dict):
        yield path, node
    children = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in list(children):
        if isinstance(child, (dict, list, tuple)):
            yield from _walk(child, (*path, key))


def _dicts(node: Any) -> Iterator[dict[str, Any]]:
    return (found for _, found in _walk(node, ()))


def _literal(value: Any) -> str:
    if isinstance(value, dict):
        if all(str(key).isidentifier() for key in value):
            return f'dict({", ".join(f"{k}={_literal(v)}" for k, v in value.items())})'
        return f'{{{", ".join(f"{k!r}: {_literal(v)}" for k, v in value.items())}}}'
    return repr(value)


def _comment(text: str, indent: str = '') -> list[str]:
    return [f'{indent}# {text}'] if text else []


def _render(node: dict[str, Any], depth: int = 1) -> list[str]:
    indent = '    ' * depth
    lines = []
    seen = ''
    for key, child in node.items():
        if isinstance(child, tuple):
            # The same reason is given once for neighbours.
            lines += _comment(child[1] if child[1] != seen else '', indent)
            seen = child[1]
            lines.append(f'{indent}{key}={child[0]},')
        else:
            lines += [f'{indent}{key}=dict(', *_render(child, depth + 1), f'{indent}),']
    return lines
