"""Removes products that a trained model does not need."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import AdaptiveBottleneck
from .product_statistics import ProductStatistics, product_bottlenecks

Model = TypeVar('Model', bound=nn.Module)

# Metrics are rounded decimals. In floating point, 0.545 - 0.544 is not exactly 0.001.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class PruningReport:
    """The result of pruning.

    Attributes:
        removed: The names of bottlenecks without products now.
        frozen: The names of bottlenecks with products and a frozen selection.
        kept: The names of unchanged bottlenecks.
        metric_before: The metric of the model.
        metric_after: The metric of the pruned copy.
        tolerance: The allowed loss.
        parameters_before: The number of the model's parameters.
        parameters_after: The number of the copy's parameters.
    """

    removed: tuple[str, ...]
    frozen: tuple[str, ...]
    kept: tuple[str, ...]
    metric_before: float
    metric_after: float
    tolerance: float
    parameters_before: int
    parameters_after: int

    def __str__(self) -> str:
        """Describes the result in four lines."""

        def names(layers: tuple[str, ...]) -> str:
            return ', '.join(layers) or 'nothing'

        return (
            f'products removed: {names(self.removed)}; kept: {names(self.frozen + self.kept)}\n'
            f'selection frozen: {names(self.frozen)}\n'
            f'metric {self.metric_before:.4f}, now {self.metric_after:.4f} (tolerance '
            f'{self.tolerance:g})\n'
            f'parameters {self.parameters_before:,}, now {self.parameters_after:,}'
        )


def prune_products(
    model: Model,
    statistics: Mapping[str, ProductStatistics],
    evaluate: Callable[[nn.Module], float],
    tolerance: float = 1e-3,
) -> tuple[Model, PruningReport]:
    """Makes a copy of a model without the products that its metric does not need.

    A bottleneck without products keeps its pointwise convolution as its expansion, and the first
    channels of its depthwise convolution and its projection. The mean contribution of the products
    goes into the normalisation of the projection. First all products are removed. If the metric
    then falls by more than the tolerance, they are removed one bottleneck after the other, those
    with the smallest share of the output first. A removal that costs too much is undone. Then the
    selections of the other bottlenecks are frozen in the same way: for all images the channels
    with the highest mean scores are selected. No scores are computed, and these channels come
    first.

    This takes at most two evaluations for each bottleneck and three more. The copy can be fused
    (:func:`fuse_for_inference`), exported and saved. Its ``state_dict`` does not fit the model.

    Args:
        model: A trained backbone or detector on any device, not fused. It is not changed.
        statistics: The statistics of all bottlenecks with products, on training images
            (:func:`~mmdet_hadaptive.export.product_statistics.collect_product_statistics`).
        evaluate: Returns a metric of a model, such as the mAP on validation data. Higher is better,
            and the model's own must be above 0.
        tolerance: The allowed total loss of the metric, at least 0.

    Returns:
        The copy, in eval mode, and a description. Perhaps nothing was removed.

    Raises:
        ValueError: If the tolerance is negative, if the model's metric is not above 0, if it has no
            products, if the statistics have no images, or if a normalisation is not a batch
            normalisation with running statistics. Others mix their channels.
    """
    if not tolerance >= 0:
        raise ValueError(
            f'the tolerance must be at least 0, got {tolerance}: it is how much of the metric may '
            'be lost'
        )
    bottlenecks = product_bottlenecks(model)
    for name, bottleneck in bottlenecks.items():
        _check_norms(name, bottleneck)

    @cache
    def metric(removed: tuple[str, ...], frozen: tuple[str, ...]) -> float:
        return evaluate(_copy_without(model, statistics, removed, frozen))

    def is_good(removed: Sequence[str], frozen: Sequence[str] = ()) -> bool:
        loss = metric((), ()) - metric(tuple(removed), tuple(frozen))
        return loss <= tolerance + _ROUNDING

    if not metric((), ()) > 0:
        raise ValueError(
            f'the metric of the model is {metric((), ()):g}, so nothing can be lost: train it '
            'further, or see whether the validation data has annotations of its classes'
        )
    names = sorted(bottlenecks, key=lambda name: statistics[name].share)
    removed = _choose(names, is_good)
    others = [name for name in names if name not in removed]
    selecting = [name for name in others if bottlenecks[name].expansion.scorer is not None]
    frozen = _choose(selecting, lambda chosen: is_good(removed, chosen))
    pruned = _copy_without(model, statistics, removed, frozen)
    in_order = {
        key: tuple(name for name in bottlenecks if name in group)
        for key, group in dict(
            removed=removed, frozen=frozen, kept=set(others) - set(frozen)
        ).items()
    }
    return pruned, PruningReport(
        **in_order,
        metric_before=metric((), ()),
        metric_after=metric(tuple(removed), tuple(frozen)),
        tolerance=tolerance,
        parameters_before=sum(p.numel() for p in model.parameters()),
        parameters_after=sum(p.numel() for p in pruned.parameters()),
    )


def _choose(names: list[str], is_good: Callable[[Sequence[str]], bool]) -> list[str]:
    """Returns all names if they are good together, else those that are good one after the other."""
    if is_good(names):
        return names
    chosen: list[str] = []
    for name in names:
        if is_good([*chosen, name]):
            chosen.append(name)
    return chosen


def _check_norms(name: str, bottleneck: AdaptiveBottleneck) -> None:
    for part in (bottleneck.expansion, bottleneck.depthwise, bottleneck.projection):
        norm = part.norm
        if not isinstance(norm, _BatchNorm) or norm.running_mean is None:
            raise ValueError(
                f'{name} has {norm}; only channels of batch normalisations with running '
                'statistics can be removed one by one: leave the products in'
            )


def _copy_without(
    model: Model,
    statistics: Mapping[str, ProductStatistics],
    removed: Sequence[str],
    frozen: Sequence[str],
) -> Model:
    pruned = copy.deepcopy(model)
    # eval() of some of MMDetection's modules does not return the module.
    pruned.eval()
    bottlenecks = product_bottlenecks(pruned)
    for name in removed:
        _remove_products(bottlenecks[name], statistics[name].mean_contribution)
    for name in frozen:
        _freeze_selection(bottlenecks[name], statistics[name].mean_scores)
    return pruned


@torch.no_grad()
def _remove_products(bottleneck: AdaptiveBottleneck, mean_contribution: Tensor) -> None:
    ach = bottleneck.expansion
    channels = ach.pointwise.out_channels
    _take_width(bottleneck, torch.arange(channels, device=ach.pointwise.weight.device))
    bottleneck.expansion = nn.Sequential(OrderedDict(conv=ach.pointwise, norm=ach.norm))
    mean = bottleneck.projection.norm.running_mean
    mean.copy_(mean.double() - mean_contribution.to(mean.device))


@torch.no_grad()
def _freeze_selection(bottleneck: AdaptiveBottleneck, mean_scores: Tensor) -> None:
    ach = bottleneck.expansion
    order = mean_scores.argsort(descending=True, stable=True).to(ach.pointwise.weight.device)
    _take(ach.pointwise, order)
    _take(ach.norm, order)
    ach.scorer = None
    products = torch.arange(len(order), ach.out_channels, device=order.device)
    _take_width(bottleneck, torch.cat([order, products]))


def _take_width(bottleneck: AdaptiveBottleneck, index: Tensor) -> None:
    """Keeps the channels of an index between expansion and projection, in its order."""
    depthwise, conv = bottleneck.depthwise, bottleneck.projection.conv
    _take(depthwise.conv, index)
    _take(depthwise.norm, index)
    depthwise.conv.in_channels = depthwise.conv.out_channels = depthwise.conv.groups = len(index)
    depthwise.norm.num_features = len(index)
    conv.weight = nn.Parameter(conv.weight[:, index])
    conv.in_channels = len(index)


def _take(module: nn.Module, index: Tensor) -> None:
    """Keeps the output channels of an index, in its order."""
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        # The count of batches has no channels.
        if value.ndim:
            taken = value[index.to(value.device)]
            setattr(module, name, nn.Parameter(taken) if isinstance(value, nn.Parameter) else taken)
