"""Makes normalisations from their names in configs."""

from collections.abc import Callable
from functools import partial
from typing import Any

from mmcv.cnn import build_norm_layer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import DySoft

NormLayer = Callable[[int], nn.Module]


def make_norm_layer(norm_cfg: dict[str, Any] | None) -> NormLayer:
    """Returns a function that makes normalisations.

    Args:
        norm_cfg: The normalisation, as for mmcv's ``build_norm_layer``. None for BatchNorm.

    Returns:
        A function from the number of channels to the module.
    """
    return partial(_build_norm, dict(norm_cfg or dict(type='BN')))


def make_product_norm(name: str, norm_layer: NormLayer) -> NormLayer:
    """Returns a function that makes the normalisation of products.

    Args:
        name: 'DySoft', or 'BN' for the network's normalisation.
        norm_layer: The normalisation of the network.

    Returns:
        A function from the number of products to the module.
    """
    return DySoft if name == 'DySoft' else norm_layer


class FixedRunningStatistics:
    """A context in which batch normalisations use the batch, but do not change running statistics.

    Args:
        module: The module that contains them.
    """

    def __init__(self, module: nn.Module) -> None:
        norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training]
        self.norms = [m for m in norms if m.track_running_stats]

    def __enter__(self) -> None:
        self.momenta = [norm.momentum for norm in self.norms]
        self.counts = [norm.num_batches_tracked.clone() for norm in self.norms]
        for norm in self.norms:
            norm.momentum = 0.0

    def __exit__(self, *exc_info: object) -> None:
        for norm, momentum, count in zip(self.norms, self.momenta, self.counts, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)


def _build_norm(norm_cfg: dict[str, Any], channels: int) -> nn.Module:
    return build_norm_layer(norm_cfg, channels)[1]
