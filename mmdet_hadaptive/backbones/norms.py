"""Normalisations by the names that configs give them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from mmcv.cnn import build_norm_layer
from torch import nn

from ..layers import DySoft

NormLayer = Callable[[int], nn.Module]


def make_norm_layer(norm_cfg: dict[str, Any] | None) -> NormLayer:
    """What makes a normalisation for a number of channels.

    Args:
        norm_cfg: As for mmcv's ``build_norm_layer``; None for ``dict(type='BN')``.

    Returns:
        A function from the number of channels to the module.
    """
    return partial(_build_norm, dict(norm_cfg or dict(type='BN')))


def make_product_norm(name: str, norm_layer: NormLayer) -> NormLayer:
    """What makes the normalisation of products.

    Args:
        name: 'DySoft' or 'BN', which stands for the normalisation of the network.
        norm_layer: The normalisation of the network.

    Returns:
        A function from the number of products to the module.
    """
    return DySoft if name == 'DySoft' else norm_layer


def _build_norm(norm_cfg: dict[str, Any], channels: int) -> nn.Module:
    return build_norm_layer(norm_cfg, channels)[1]
