"""Puts Adaptive Cross-Hadamard into other backbones."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from mmengine.registry import MODELS
from torch import nn

from ..layers import AdaptiveBottleneck, AdaptiveCrossHadamard
from .architectures import check_product_norm
from .norms import make_norm_layer, make_product_norm

# A run on such an image gives the input and output channels of the blocks.
_PROBE = 64


def adaptive_bottleneck(
    in_channels: int,
    out_channels: int,
    num_selected: int,
    kernel_size: int = 3,
    stride: int = 1,
    product_norm: Literal['DySoft', 'BN'] = 'DySoft',
    norm_cfg: dict[str, Any] | None = None,
) -> AdaptiveBottleneck:
    """Builds an :class:`AdaptiveBottleneck` with ACH from a config's values.

    Registered as 'AdaptiveBottleneck'.

    Args:
        in_channels: The number of input channels.
        out_channels: The number of output channels.
        num_selected: The number of channels that are multiplied, 2 to ``in_channels``.
        kernel_size: The side of the depthwise kernel: odd for stride 1, 2 for stride 2.
        stride: 1 or 2.
        product_norm: The normalisation of the products. 'BN' means ``norm_cfg``.
        norm_cfg: The normalisation, as for mmcv's ``build_norm_layer``.

    Returns:
        The layer.

    Raises:
        ValueError: If an argument has a value outside its limits.
    """
    check_product_norm(product_norm, 'an AdaptiveBottleneck')
    norm_layer = make_norm_layer(norm_cfg)
    expansion = AdaptiveCrossHadamard(
        in_channels, num_selected, make_product_norm(product_norm, norm_layer), norm_layer
    )
    return AdaptiveBottleneck(in_channels, out_channels, expansion, kernel_size, stride, norm_layer)


def backbone_with_ach(backbone: dict[str, Any], blocks: Mapping[str, dict[str, Any]]) -> nn.Module:
    """Builds a backbone and replaces some of its blocks by adaptive bottlenecks.

    Registered as 'BackboneWithACH'. The result is the backbone itself. All other parts keep their
    names, so their weights can be loaded. The paper does this with the last two blocks of networks
    such as MobileNetV3 (arXiv 2505.22226, experiments).

    Args:
        backbone: The config of the backbone.
        blocks: The arguments of :func:`adaptive_bottleneck` for each block's name, such as
            'layer6.2'. ``in_channels``, ``out_channels`` and ``stride`` are the old block's.

    Returns:
        The backbone.

    Raises:
        ValueError: If there is no block of that name, or if it does not map one feature map to
            another.
    """
    net = MODELS.build(backbone)
    modules = dict(net.named_modules())
    seen: dict[str, tuple[torch.Size, torch.Size]] = {}

    def look(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if len(inputs) == 1 and isinstance(output, torch.Tensor) and output.ndim == 4:
            seen[name] = inputs[0].shape, output.shape

    unknown = blocks.keys() - modules.keys()
    if unknown:
        raise ValueError(
            f'{type(net).__name__} has no blocks {sorted(unknown)}; names are such as '
            f'{list(modules)[-1]!r}'
        )
    handles = [modules[name].register_forward_hook(partial(look, name)) for name in blocks]
    training = net.training
    net.eval()
    with torch.no_grad():
        net(torch.zeros(1, 3, _PROBE, _PROBE))
    net.train(training)
    for handle in handles:
        handle.remove()
    if blocks.keys() - seen.keys():
        raise ValueError(
            f'{sorted(blocks.keys() - seen.keys())} of {type(net).__name__} do not map one feature '
            'map to another: name blocks that do'
        )
    for name, options in blocks.items():
        before, after = seen[name]
        parent, _, child = name.rpartition('.')
        stride = before[-1] // after[-1]
        setattr(
            modules[parent],
            child,
            adaptive_bottleneck(before[1], after[1], stride=stride, **options),
        )
    return net
