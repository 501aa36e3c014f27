"""The architecture tables of Hadaptive-Net (arXiv 2505.22226 v2, architecture tables).

An architecture is ``dict(stages=[...], final_channels=N)``. The first stage is the stem; each
stage is a list of blocks, and a block is one of

- ``dict(type='conv', channels, kernel, stride, act)``: convolution, normalisation, Hardswish
  unless ``act`` is false;
- ``dict(type='ghost', channels, expand, kernel, stride)``: bottleneck, Ghost expansion by the
  factor ``expand``;
- ``dict(type='ach', channels, num_selected, kernel, product_norm)``: bottleneck of stride 1, ACH
  expansion with the products normalised by 'DySoft' or 'BN' (the backbone's ``norm_cfg``).

``channels`` is what the block puts out. ``final_channels`` is the width of the 1x1 convolution
after the last stage. A table is plain data, so that a config can hold one.
"""

from typing import Any

Block = dict[str, Any]


def _conv(channels: int, kernel: int, stride: int = 1, act: bool = True) -> Block:
    return dict(type='conv', channels=channels, kernel=kernel, stride=stride, act=act)


def _ghost(channels: int, expand: int, kernel: int) -> Block:
    # Every stride-2 depthwise convolution of the paper has a 2 x 2 kernel, and no other has.
    stride = 2 if kernel == 2 else 1
    return dict(type='ghost', channels=channels, expand=expand, kernel=kernel, stride=stride)


def _ach(channels: int, num_selected: int, kernel: int, product_norm: str = 'DySoft') -> Block:
    return dict(
        type='ach',
        channels=channels,
        num_selected=num_selected,
        kernel=kernel,
        product_norm=product_norm,
    )


ARCHITECTURES: dict[str, dict[str, Any]] = {
    'small': dict(
        stages=[
            [_conv(32, 2, stride=2, act=False)],
            [_conv(48, 2, stride=2), _conv(32, 1)],
            [_ghost(64, 4, 2), _ghost(64, 2, 3)],
            [
                _ghost(96, 4, 2),
                _ach(96, 16, 5),
                _ach(96, 16, 5),
                _ghost(96, 2, 5),
                _ach(96, 16, 5),
                _ach(96, 16, 5),
            ],
            [_ghost(128, 6, 2), _ach(128, 32, 7), _ach(128, 32, 7)],
        ],
        final_channels=960,
    ),
    'medium': dict(
        stages=[
            [_conv(32, 2, stride=2, act=False)],
            [_conv(128, 2, stride=2), _conv(48, 1)],
            [_ghost(80, 4, 2), _ghost(80, 2, 3)],
            [
                _ghost(128, 6, 2),
                *[_ach(128, 24, 5), _ach(128, 24, 5, 'BN'), _ghost(128, 4, 5)] * 2,
                _ach(128, 24, 5),
                _ach(128, 24, 5, 'BN'),
            ],
            [_ghost(192, 6, 2), _ach(192, 36, 7), _ach(192, 36, 7, 'BN')],
        ],
        final_channels=960,
    ),
    'large': dict(
        stages=[
            [_conv(24, 2, stride=2, act=False)],
            [_conv(96, 2, stride=2), _conv(48, 1)],
            [_ghost(96, 4, 2), _ghost(96, 4, 3)],
            [
                _ghost(192, 4, 2),
                *[_ach(192, 32, 5), _ach(192, 32, 5, 'BN'), _ghost(192, 4, 5)] * 3,
                _ach(192, 32, 5),
                _ach(192, 32, 5, 'BN'),
            ],
            [_ghost(256, 4, 2), _ach(256, 36, 7), _ach(256, 36, 7, 'BN')],
            [_ghost(256, 4, 2), _ach(256, 36, 7), _ach(256, 36, 7, 'BN')],
        ],
        final_channels=960,
    ),
}
