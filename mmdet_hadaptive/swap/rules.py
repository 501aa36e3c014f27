"""The rules for changes in a config when HadaptiveNet replaces its backbone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from reprlib import repr as shorten
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from hadaptive_runtime.errors import describe_error

from ..models import HadaptiveNet
from ..models.architectures import find_architecture
from ..utils.configs import KeyPath, type_name, walk
from .detector import Level, examine_backbone, find_detector
from .edits import Edit, apply_edits, format_path, get_at, loads_weights
from .errors import SwapError
from .smoke import build_for_smoke_test

# The normalisation of torchvision's weights. The authors of Hadaptive-Net use the same.
_NORMALISATION = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
# Heads of mmdet 3.3.0 that cannot predict, and their fixed versions.
_FIXED_HEADS = {'SSDHead': 'PatchedSSDHead'}
# Optimizer constructors for one backbone, and their replacements.
_CONSTRUCTORS = {
    'LearningRateDecayOptimizerConstructor': (
        'DefaultOptimWrapperConstructor',
        'Learning rates by layer are made for ConvNeXt.',
    )
}
# Normalisations that HadaptiveNet takes from the old backbone.
_NORMS = dict(BN='BN', BatchNorm2d='BN', SyncBN='SyncBN', SyncBatchNorm='SyncBN')


@dataclass
class SwapContext:
    """The data for all rules.

    Attributes:
        config: The config whose backbone is replaced.
        where: The path of the detector.
        detector: The config of the detector.
        levels: The outputs of the old backbone.
        old_names: The names of the old backbone's parameters. Empty if it cannot be built.
        stacked: Whether the old backbone has several outputs of the same size.
        arch: The name of the new backbone's architecture.
        net: The new backbone.
        edits: The edits of previous rules.
    """

    config: Config
    where: KeyPath
    detector: ConfigDict
    levels: list[Level]
    old_names: list[str]
    stacked: bool
    arch: str
    net: HadaptiveNet
    edits: list[Edit] = field(default_factory=list)

    @property
    def old_channels(self) -> list[int]:
        """Returns the channels of the old backbone's outputs."""
        return [level.channels for level in self.levels]

    def translate(self, value: Any) -> Any:
        """Returns the new channels for old ones. None if they are not the backbone's."""
        old, new = self.old_channels, list(self.net.out_channels)
        if isinstance(value, int):
            return new[old.index(value)] if value in old else None
        if not isinstance(value, (list, tuple)):
            return None
        given = list(value)
        if given[: len(old)] == old:
            return new + given[len(old) :]
        # YOLOv3's order starts with the smallest map.
        return new[::-1] if given == old[::-1] else None


def plan_swap(config: Config, arch: str = 'small') -> list[Edit]:
    """Finds what must change in a config when HadaptiveNet replaces its backbone.

    Args:
        config: A config of an MMDetection detector.
        arch: The name of an architecture, such as 'small'.

    Returns:
        The edits. The backbone's comes first among the model's. Equal configs give equal edits.

    Raises:
        SwapError: If the backbone cannot be replaced.
        ValueError: If the architecture does not exist.
    """
    context = _examine(config, arch)
    for rule in _RULES:
        context.edits += rule(context)
    return context.edits


def _examine(config: Config, arch: str) -> SwapContext:
    init_default_scope('mmdet')
    stages = len(find_architecture(arch)['stages'])
    where = find_detector(config)
    _register_modules(_kept_imports(config))
    detector = get_at(config, where)
    levels, old_names = examine_backbone(detector, format_path(where))
    strides = [level.stride for level in levels]
    stacked = len(set(strides)) < len(strides)
    wanted = [32] if stacked else strides
    own = HadaptiveNet(arch, out_indices=range(stages)).out_strides
    missing = [stride for stride in wanted if stride not in own]
    if missing:
        raise SwapError(
            f'backbone.out_indices: the backbone gives maps of stride {missing}, Hadaptive-Net '
            f'{arch} has {list(own)}'
            + ('; use --arch large' if missing == [64] and arch != 'large' else '')
        )
    net = HadaptiveNet(arch, out_indices=[own.index(stride) for stride in wanted])
    return SwapContext(config, where, detector, levels, old_names, stacked, arch, net)


def _kept_imports(config: Config) -> list[str]:
    """Returns the modules that the new config imports, too. The old backbone's mmpretrain goes."""
    given = (config.get('custom_imports') or {}).get('imports') or []
    imports = [given] if isinstance(given, str) else list(given)
    rest = {key: value for key, value in config.model.items() if key != 'backbone'}
    needed = 'mmpretrain.' in repr(rest)
    return [name for name in imports if needed or not name.startswith('mmpretrain')]


def _register_modules(names: Sequence[str]) -> None:
    """Imports modules, so that the parts of the detector that they register can be built."""
    for name in names:
        try:
            import_module(name)
        # A module is a program. It can raise any error.
        except Exception as error:
            raise SwapError(
                f'custom_imports: {name} cannot be imported, {describe_error(error)}: install it, '
                'or name its folder in PYTHONPATH'
            ) from error


def _import_package(context: SwapContext) -> list[Edit]:
    value = _dict_at(
        context.config,
        'custom_imports',
        imports=[*_kept_imports(context.config), 'mmdet_hadaptive'],
        allow_failed_imports=False,
    )
    return [Edit(('custom_imports',), value, '')]


def _replace_backbone(context: SwapContext) -> list[Edit]:
    backbone: dict[str, Any] = dict(
        _delete_=True,
        type='HadaptiveNet',
        arch=context.arch,
        out_indices=tuple(context.net.out_indices),
    )
    norm = context.detector.backbone.get('norm_cfg') or {}
    if type_name(norm.get('type')) in _NORMS and norm.get('requires_grad', True):
        rest = {
            key: value
            for key, value in norm.items()
            if key not in ('type', 'requires_grad', '_scope_')
        }
        norm = dict(type=_NORMS[type_name(norm['type'])], **rest)
        if norm != dict(type='BN'):
            backbone['norm_cfg'] = norm
    why = (
        f'Strides {", ".join(map(str, context.net.out_strides))}. It starts without weights, so '
        'that nothing of it is frozen.'
    )
    return [Edit((*context.where, 'backbone'), backbone, why)]


def _add_decoder(context: SwapContext) -> list[Edit]:
    """The rule for stacked hourglasses. They encode and decode, but Hadaptive-Net only encodes."""
    if not context.stacked:
        return []
    detector, level = context.detector, context.levels[0]
    if detector.get('neck') or 'num_feat_levels' not in (detector.get('bbox_head') or {}):
        raise SwapError(
            f'{format_path(context.where)}.backbone: {detector.backbone.type} gives several '
            f'maps of stride {level.stride}, and nothing is known about what reads them'
        )
    steps = (context.net.out_strides[-1] // level.stride).bit_length() - 1
    neck = dict(
        _dict_at(detector, 'neck'),
        type='CTResNetNeck',
        in_channels=context.net.out_channels[-1],
        num_deconv_filters=(level.channels,) * steps,
        num_deconv_kernels=(4,) * steps,
        use_dcn=False,
    )
    why = f'The old backbone encodes and decodes to stride {level.stride}; here the neck decodes.'
    return [
        Edit((*context.where, 'neck'), neck, why),
        Edit((*context.where, 'bbox_head', 'num_feat_levels'), 1, 'One map in place of a stack.'),
    ]


def _adapt_neck(context: SwapContext) -> list[Edit]:
    if context.stacked or not context.detector.get('neck'):
        return []
    neck, path = context.detector.neck, (*context.where, 'neck')
    if not isinstance(neck, dict):
        neck, path = neck[0], (*path, 0)
    if not isinstance(neck, dict):
        raise SwapError(f'{format_path(path)} must be a dict, got {shorten(neck)}')
    found = context.translate(neck.get('in_channels'))
    if found is None:
        raise SwapError(
            f'{format_path(path)}.in_channels={neck.get("in_channels")}: not the channels '
            f'of the backbone, which are {context.old_channels}'
        )
    edits = [Edit((*path, 'in_channels'), found, 'The channels of the new backbone.')]
    # SSD's neck does not change the backbone's maps.
    is_ssd = type_name(neck.get('type')) == 'SSDNeck'
    out = context.translate(neck.get('out_channels')) if is_ssd else None
    head = context.detector.get('bbox_head')
    if out is not None and isinstance(head, dict):
        why = 'The first maps come from the backbone unchanged.'
        edits.append(Edit((*path, 'out_channels'), out, why))
        edits.append(Edit((*context.where, 'bbox_head', 'in_channels'), out, why))
        fixed = _FIXED_HEADS.get(type_name(head.get('type')))
        if fixed:
            why = f'{head.type} of mmdet 3.3.0 cannot predict; this is the same head, fixed.'
            edits.append(Edit((*context.where, 'bbox_head', 'type'), fixed, why))
    return edits


def _adapt_heads(context: SwapContext) -> list[Edit]:
    """The rule for heads that read the backbone directly."""
    detector, old = context.detector, context.old_channels
    if context.stacked or detector.get('neck'):
        return []
    if 'shared_head' in (detector.get('roi_head') or {}):
        neck = dict(
            _dict_at(detector, 'neck'),
            type='ChannelMapper',
            in_channels=list(context.net.out_channels),
            out_channels=old[-1],
            kernel_size=1,
            num_outs=len(old),
        )
        why = 'The shared head is a stage of the old network and fixed to its channels.'
        return [Edit((*context.where, 'neck'), neck, why)]
    edits = []
    for key in detector:
        if not str(key).endswith('head'):
            continue
        for path, node in walk(detector[key], (*context.where, key)):
            # With several maps, a single number is the width of something else.
            names = ['in_channels', *(['out_channels'] if 'roi_layer' in node else [])]
            for name in names:
                found = context.translate(node.get(name))
                if found is not None and (len(old) == 1 or isinstance(found, list)):
                    edits.append(Edit((*path, name), found, 'It reads the backbone directly.'))
    if not edits:
        raise SwapError(
            f'{format_path(context.where)}: there is no neck, and no head whose in_channels '
            f'are those of the backbone, {old}'
        )
    return edits


def _adapt_normalisation(context: SwapContext) -> list[Edit]:
    return [
        Edit((*path, key), value, 'The old constants belong to the old weights.')
        for path, node in walk(context.config.model, ('model',))
        if path[-1] == 'data_preprocessor' and _divides_by_one(node.get('std'))
        for key, value in _NORMALISATION.items()
    ]


def _drop_weights(context: SwapContext) -> list[Edit]:
    """The rule for weights of whole detectors. They contain the old backbone's.

    The new detector must not write to the old one's folder either.
    """
    why = 'These weights are those of a detector with the old backbone.'
    edits = []
    if context.config.get('load_from'):
        edits.append(Edit(('load_from',), None, why))
    if context.config.get('work_dir'):
        why_folder = 'This folder is for the checkpoints of the old detector.'
        edits.append(Edit(('work_dir',), None, why_folder))
    if context.config.get('resume'):
        edits.append(Edit(('resume',), False, 'The new detector has no checkpoint yet.'))
    for path in dict.fromkeys([('model',), context.where]):
        if loads_weights(get_at(context.config, path).get('init_cfg')):
            edits.append(Edit((*path, 'init_cfg'), None, why))
    return edits


def _adapt_optimizer(context: SwapContext) -> list[Edit]:
    wrapper = context.config.get('optim_wrapper') or {}
    constructor = type_name(wrapper.get('constructor'))
    if constructor in _CONSTRUCTORS:
        replacement, why = _CONSTRUCTORS[constructor]
        return [
            Edit(('optim_wrapper', 'constructor'), replacement, why),
            Edit(('optim_wrapper', 'paramwise_cfg'), None, why),
        ]
    keys = dict((wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {})
    place = ('optim_wrapper', 'paramwise_cfg', 'custom_keys')
    if not all(isinstance(key, str) for key in keys):
        raise SwapError(f'{format_path(place)}: the keys must be names, got {list(keys)}')
    stale = _find_stale(context, list(keys))
    # A low rate protects pre-trained weights. The new ones are not trained.
    slow = [
        key
        for key, value in keys.items()
        if key.split('.')[0] == 'backbone' and key not in stale and value.get('lr_mult', 1) < 1
    ]
    if not stale:
        why = 'A low rate is for weights that are trained already.'
        return [Edit((*place, key, 'lr_mult'), 1.0, why) for key in slow]
    rest = {
        key: {**value, **(dict(lr_mult=1.0) if key in slow else {})}
        for key, value in keys.items()
        if key not in stale
    }
    why = f'Layers of the old backbone are gone: {", ".join(sorted(stale))[:300]}.'
    return [Edit(place, dict(_delete_=True, **rest), why)]


def _find_stale(context: SwapContext, keys: Sequence[str]) -> list[str]:
    """Yields the keys of settings for layers that the new detector does not have."""
    new_names = [f'backbone.{name}' for name, _ in context.net.named_parameters()]
    stale = [
        key
        for key in keys
        if not any(key in name for name in new_names)
        and (key.startswith('backbone.') or any(key in name for name in context.old_names))
    ]
    if not stale:
        return []
    # Other parts of the detector may have layers with the same name.
    model = build_for_smoke_test(apply_edits(context.config, context.edits))
    names = [name for name, _ in model.named_parameters()]
    return [key for key in stale if not any(key in name for name in names)]


def _dict_at(parent: Any, key: str, **values: Any) -> dict[str, Any]:
    """Returns the value for a key. MMEngine cannot merge a dict into another type, such as None."""
    if key in parent and not isinstance(parent[key], dict):
        return dict(_delete_=True, **values)
    return values


def _divides_by_one(std: Any) -> bool:
    return isinstance(std, (list, tuple)) and len(std) > 0 and all(s == 1 for s in std)


# They run in this order. Each sees the edits of the previous rules.
_RULES: tuple[Callable[[SwapContext], list[Edit]], ...] = (
    _import_package,
    _replace_backbone,
    _add_decoder,
    _adapt_neck,
    _adapt_heads,
    _adapt_normalisation,
    _drop_weights,
    _adapt_optimizer,
)
