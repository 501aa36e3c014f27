"""The architecture tables of Hadaptive-Net (arXiv 2505.22226 v2, architecture tables).

An architecture is ``dict(stages=[...], final_channels=N)``. The first stage is the stem. Each stage
is a list of blocks. A block is one of

- ``dict(type='conv', channels, kernel, stride, act)``: convolution, normalisation, Hardswish
  unless ``act`` is false;
- ``dict(type='ghost', channels, expand, kernel, stride)``: bottleneck, Ghost expansion by the
  factor ``expand``;
- ``dict(type='inverted_residual', channels, width, kernel)``: inverted residual, expansion to
  ``width`` channels by a 1x1 convolution with Hardswish (arXiv 1801.04381);
- ``dict(type='ach', channels, num_selected, kernel, product_norm)``: bottleneck, ACH expansion with
  the products normalised by 'DySoft' or 'BN' (the backbone's ``norm_cfg``).

The last two may have a ``stride`` (1 by default). Kernels are odd, or 2 if the stride is 2.
``channels`` is the number of output channels. ``final_channels`` is the width of the 1x1
convolution after the last stage. A table is plain data, so a config can hold one.
"""

from collections.abc import Mapping
from typing import Any

Block = dict[str, Any]

_BLOCK_KEYS = {
    'conv': {'channels', 'kernel', 'stride', 'act'},
    'ghost': {'channels', 'expand', 'kernel', 'stride'},
    'inverted_residual': {'channels', 'width', 'kernel'},
    'ach': {'channels', 'num_selected', 'kernel', 'product_norm'},
}
_OPTIONAL_KEYS = {'inverted_residual': {'stride'}, 'ach': {'stride'}}
_PRODUCT_NORMS = ('DySoft', 'BN')
_ACH_KEYS = {'straight_through', 'selection', 'adapt_temperature', 'product_norm'}


def conv(channels: int, kernel: int, stride: int = 1, act: bool = True) -> Block:
    """A convolution."""
    return dict(type='conv', channels=channels, kernel=kernel, stride=stride, act=act)


def ghost(channels: int, expand: int, kernel: int, stride: int | None = None) -> Block:
    """A Ghost bottleneck. As in the paper, 2 x 2 kernels have a stride of 2, others of 1."""
    stride = stride or (2 if kernel == 2 else 1)
    return dict(type='ghost', channels=channels, expand=expand, kernel=kernel, stride=stride)


def inverted_residual(channels: int, width: int, kernel: int, stride: int = 1) -> Block:
    """An inverted residual."""
    block = dict(type='inverted_residual', channels=channels, width=width, kernel=kernel)
    return block if stride == 1 else block | dict(stride=stride)


def ach(
    channels: int, num_selected: int, kernel: int, product_norm: str = 'DySoft', stride: int = 1
) -> Block:
    """An ACH bottleneck."""
    block = dict(
        type='ach',
        channels=channels,
        num_selected=num_selected,
        kernel=kernel,
        product_norm=product_norm,
    )
    return block if stride == 1 else block | dict(stride=stride)


def _table(*stages: list[Block]) -> dict[str, Any]:
    # Copies, so that a change of one block does not change the others.
    return dict(stages=[[dict(b) for b in stage] for stage in stages], final_channels=960)


def _small(wide3: Block, wide4: Block) -> dict[str, Any]:
    return _table(
        [conv(32, 2, stride=2, act=False)],
        [conv(48, 2, stride=2), conv(32, 1)],
        [ghost(64, 4, 2), ghost(64, 2, 3)],
        [ghost(96, 4, 2), wide3, wide3, ghost(96, 2, 5), wide3, wide3],
        [ghost(128, 6, 2), wide4, wide4],
    )


def _medium(wide3: list[Block], wide4: list[Block]) -> dict[str, Any]:
    return _table(
        [conv(32, 2, stride=2, act=False)],
        [conv(128, 2, stride=2), conv(48, 1)],
        [ghost(80, 4, 2), ghost(80, 2, 3)],
        [ghost(128, 6, 2), *[*wide3, ghost(128, 4, 5)] * 2, *wide3],
        [ghost(192, 6, 2), *wide4],
    )


def _large(wide3: list[Block], wide4: list[Block]) -> dict[str, Any]:
    return _table(
        [conv(24, 2, stride=2, act=False)],
        [conv(96, 2, stride=2), conv(48, 1)],
        [ghost(96, 4, 2), ghost(96, 4, 3)],
        [ghost(192, 4, 2), *[*wide3, ghost(192, 4, 5)] * 3, *wide3],
        [ghost(256, 4, 2), *wide4],
        [ghost(256, 4, 2), *wide4],
    )


PUBLISHED_ARCHITECTURES: dict[str, dict[str, Any]] = {
    'small': _small(ach(96, 16, 5), ach(128, 32, 7)),
    'medium': _medium(
        [ach(128, 24, 5), ach(128, 24, 5, 'BN')], [ach(192, 36, 7), ach(192, 36, 7, 'BN')]
    ),
    'large': _large(
        [ach(192, 32, 5), ach(192, 32, 5, 'BN')], [ach(256, 36, 7), ach(256, 36, 7, 'BN')]
    ),
}
# The same with inverted residuals in place of ACH, with equal multiply-accumulates
# (research/reports/ablation.md).
ARCHITECTURES = PUBLISHED_ARCHITECTURES | {
    'small-ir': _small(inverted_residual(96, 160, 5), inverted_residual(128, 416, 7)),
    'medium-ir': _medium(
        [inverted_residual(128, 280, 5)] * 2, [inverted_residual(192, 544, 7)] * 2
    ),
    'large-ir': _large([inverted_residual(192, 456, 5)] * 2, [inverted_residual(256, 600, 7)] * 2),
}


def find_architecture(arch: str | dict[str, Any]) -> dict[str, Any]:
    """Looks up an architecture by its name, or checks a table.

    Args:
        arch: One of :data:`ARCHITECTURES`, or a table as this module describes it.

    Returns:
        The table.

    Raises:
        TypeError: If it is neither a name nor a table.
        ValueError: If there is no such name, or if a stage or block of the table is wrong. It names
            the block.
    """
    if isinstance(arch, str):
        if arch not in ARCHITECTURES:
            raise ValueError(
                f'arch must be one of {sorted(ARCHITECTURES)} or a table, got {arch!r}'
            )
        return ARCHITECTURES[arch]
    if not isinstance(arch, dict) or not {'stages', 'final_channels'} <= arch.keys():
        raise TypeError(
            f'arch must be one of {sorted(ARCHITECTURES)} or dict(stages=..., final_channels=...), '
            f'got {arch!r}'
        )
    if not arch['stages'] or not all(arch['stages']):
        raise ValueError(f"arch['stages'] must be a list of non-empty stages, got {arch['stages']}")
    for index, stage in enumerate(arch['stages']):
        for block in stage:
            check_block(block, f"arch['stages'][{index}]: {dict(block)}")
    return arch


def check_block(block: Block, where: str) -> None:
    """Raises a ValueError with the block's place if the block is wrong."""
    kind = block.get('type')
    if kind not in _BLOCK_KEYS:
        raise ValueError(f'type must be one of {sorted(_BLOCK_KEYS)} in {where}')
    keys, optional = _BLOCK_KEYS[kind], _OPTIONAL_KEYS.get(kind, set())
    if not keys <= block.keys() - {'type'} <= keys | optional:
        may = f', and may be {", ".join(optional)}' if optional else ''
        raise ValueError(f'the keys must be type, {", ".join(sorted(keys))}{may} in {where}')
    if 'product_norm' in block:
        check_product_norm(block['product_norm'], where)


def check_ach_cfg(ach_cfg: Mapping[str, Any] | None) -> dict[str, Any]:
    """Checks a config's arguments for all ACH layers of a network.

    Args:
        ach_cfg: The arguments. None for none.

    Returns:
        A copy.

    Raises:
        ValueError: If an argument or the normalisation of the products is unknown.
    """
    checked = dict(ach_cfg or {})
    unknown = checked.keys() - _ACH_KEYS
    if unknown:
        raise ValueError(
            f'the keys of ach_cfg must be among {sorted(_ACH_KEYS)}, got {sorted(unknown)}'
        )
    if 'product_norm' in checked:
        check_product_norm(checked['product_norm'], 'ach_cfg')
    return checked


def check_product_norm(name: str, where: str) -> None:
    """Raises a ValueError with the place if products cannot be normalised by this."""
    if name not in _PRODUCT_NORMS:
        raise ValueError(
            f'product_norm must be {" or ".join(map(repr, _PRODUCT_NORMS))} in {where}, '
            f'got {name!r}'
        )
