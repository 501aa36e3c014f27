"""Converts checkpoints of the classifiers in the authors' release."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..layers import AdaptiveCrossHadamard
from ..models import PUBLISHED_ARCHITECTURES, HadaptiveNet
from ..utils.safe_loading import read_checkpoint

# Parts of our names, and of the authors' names, within a layer.
_NAMES = [
    ('expansion.primary.', 'block.0.primary_conv.'),
    ('expansion.cheap.', 'block.0.cheap_operation.'),
    ('expansion.pointwise.', 'block.0.fc.'),
    ('expansion.norm.', 'block.0.norm_x.'),
    ('expansion.scorer.conv.', 'block.0.eva_net.conv.'),
    ('expansion.product_norm.', 'block.0.norm.'),
    ('expansion.temperature', 'block.0.tau'),
    ('depthwise.', 'block.1.'),
    ('projection.', 'block.2.'),
]
# The authors' linear layers, and those of MMPretrain's StackedLinearClsHead.
_HEAD = {'classifier.0.': 'head.layers.0.fc.', 'classifier.3.': 'head.layers.1.fc.'}


def convert_released_checkpoint(path: str | Path, with_head: bool = False) -> dict[str, Any]:
    """Converts a checkpoint of the authors' release.

    The temperatures are kept. The gradient norms are not, because the release stores them as
    integers. So the first training step has no norm to compare with.

    Args:
        path: The file. It is read with ``weights_only=True``.
        with_head: Whether to convert the classifier's head, too.

    Returns:
        ``dict(meta, state_dict)``, float32. The names are those of :class:`HadaptiveNet` with the
        final convolution. With the head, they are those of an MMPretrain classifier (``backbone.``
        and ``head.``).

    Raises:
        ValueError: If the file is not such a checkpoint, or is incomplete. It names the keys.
    """
    released = _read(Path(path))
    arch = _recognise(released, path)
    table = PUBLISHED_ARCHITECTURES[arch]
    net = HadaptiveNet(arch, out_indices=(len(table['stages']),))
    names = _released_names(net)
    head = {key: value for key, value in released.items() if '.classifier.' in key}
    ignored = re.compile(r'layers\.\d+\.block\.0\.(tau_adj|hadamard_[ij])')
    given = {key for key in released if key not in head and not ignored.fullmatch(key)}
    missing, unexpected = sorted(set(names.values()) - given), sorted(given - set(names.values()))
    if missing or unexpected:
        raise ValueError(
            f'{path} does not hold the {arch} network: {len(missing)} keys are missing '
            f'{missing[:3]}, {len(unexpected)} are unexpected {unexpected[:3]}'
        )
    own = net.state_dict()
    state: dict[str, Tensor] = {}
    for name, value in own.items():
        if name.endswith('last_grad_norm'):
            state[name] = value
            continue
        found = released[names[name]]
        # The release has additional dimensions of size one.
        if found.squeeze().shape != value.squeeze().shape:
            raise ValueError(
                f'{path}: {names[name]} has the shape {tuple(found.shape)}, the {arch} '
                f'network needs {tuple(value.shape)}'
            )
        state[name] = found.reshape(value.shape).to(value.dtype)
    _check_pairs(net, names, released, path)
    meta = dict(source=Path(path).name, arch=arch)
    if not with_head:
        return dict(meta=meta, state_dict=state)
    state = {f'backbone.{name}': value for name, value in state.items()}
    for old, new in _HEAD.items():
        for part in ('weight', 'bias'):
            found = [value for key, value in head.items() if key.endswith(old + part)]
            if not found:
                raise ValueError(f'{path} has no classifier head: layers.N.{old}{part} is missing')
            state[new + part] = found[0].float()
    hidden, classes = (state[f'head.layers.{i}.fc.bias'].numel() for i in range(2))
    features = table['final_channels']
    for i, shape in enumerate([(hidden, features), (classes, hidden)]):
        found = tuple(state[f'head.layers.{i}.fc.weight'].shape)
        if found != shape:
            raise ValueError(
                f'{path}: linear layer {i} of the classifier has the shape {found}, its '
                f'neighbours need {shape}'
            )
    return dict(meta=meta, state_dict=state)


def _read(path: Path) -> dict[str, Tensor]:
    content = read_checkpoint(path)
    if 'model_state_dict' not in content:
        raise ValueError(
            f"{path} is no checkpoint of the authors' release: it has no model_state_dict, but "
            f'{sorted(map(str, content))[:5]}'
        )
    state = content['model_state_dict']
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise ValueError(f'{path}: model_state_dict is not a dict of tensors by their names')
    invalid = [key for key, value in state.items() if not value.isfinite().all()]
    if invalid:
        raise ValueError(f'{path}: {len(invalid)} tensors are not finite {invalid[:3]}')
    return state


def _recognise(released: dict[str, Tensor], path: str | Path) -> str:
    """Returns the network with this stem and first convolution."""
    keys = ('layers.0.conv.weight', 'layers.1.conv.weight', 'layers.2.conv.weight')
    absent = [key for key in keys if key not in released]
    if absent:
        raise ValueError(f'{path} lacks {absent}, with which every Hadaptive-Net begins')
    widths = [sum(released[key].shape[:1]) for key in keys]
    for arch, table in PUBLISHED_ARCHITECTURES.items():
        blocks = [block for stage in table['stages'] for block in stage]
        if [block['channels'] for block in blocks[:3]] == widths:
            return arch
    raise ValueError(
        f'{path}: the first layers have {widths} channels, which is none of '
        f'{list(PUBLISHED_ARCHITECTURES)}'
    )


def _released_names(net: HadaptiveNet) -> dict[str, str]:
    """Returns the authors' name for each of ours."""
    layers: dict[str, int] = {}
    names = {}
    for name in net.state_dict():
        stage, index, rest = name.split('.', 2)
        layer = layers.setdefault(f'{stage}.{index}', len(layers))
        if rest.endswith('last_grad_norm'):
            continue
        for ours, theirs in _NAMES:
            if rest.startswith(ours):
                rest = theirs + rest.removeprefix(ours)
                break
        # Convolutions with normalisation. The other two normalisations were renamed above.
        rest = re.sub(r'(^|conv\.|operation\.|[12]\.)norm\.', r'\1bn.', rest)
        names[name] = f'layers.{layer}.{rest}'
    return names


def _check_pairs(
    net: HadaptiveNet, names: dict[str, str], released: dict[str, Tensor], path: str | Path
) -> None:
    """Refuses products in another order, because their norm and convolutions would not fit."""
    for module_name, module in net.named_modules():
        if isinstance(module, AdaptiveCrossHadamard):
            layer = names[f'{module_name}.temperature'].removesuffix('tau')
            order = torch.triu_indices(module.num_selected, module.num_selected, 1)
            for key, expected in zip(('hadamard_i', 'hadamard_j'), order, strict=True):
                found = released.get(layer + key)
                if found is not None and not torch.equal(found.flatten().long(), expected):
                    raise ValueError(f'{path}: {layer}{key} orders the products differently')
