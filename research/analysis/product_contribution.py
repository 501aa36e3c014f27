"""Measures what a trained model owes to its products and to their selection."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mmdet_hadaptive.export.product_statistics import (
    ProductStatistics,
    product_bottlenecks,
    split_projection,
)
from mmdet_hadaptive.layers import AdaptiveBottleneck

Bottlenecks = Mapping[str, AdaptiveBottleneck]
Statistics = Mapping[str, ProductStatistics]


@dataclass(frozen=True)
class ProductContribution:
    """A metric of a model after something was taken from its products.

    Attributes:
        layer: Name of the bottleneck that this was done to, or 'all'.
        share: The products' share of the bottleneck's output (:attr:`ProductStatistics.share`);
            None for all.
        constant: The metric with the products replaced by a constant.
        random: The metric with random channels for each image; None if the selection is fixed.
        frozen: The metric with the same channels for all images; None if it is fixed.
    """

    layer: str
    share: float | None
    constant: float
    random: float | None
    frozen: float | None


def measure_products(
    model: nn.Module, statistics: Statistics, evaluate: Callable[[nn.Module], float]
) -> Iterator[ProductContribution]:
    """Evaluates a model without its products, and without its selection of channels.

    Args:
        model: The trained model, in eval mode, not fused. Its forward passes are changed while
            ``evaluate`` runs.
        statistics: The statistics of training images (:func:`collect_product_statistics`).
        evaluate: Returns the metric of the model, such as its mAP on the validation data.

    Yields:
        For all bottlenecks together, then for each: three evaluations, one if no bottleneck
        selects by scores.

    Raises:
        ValueError: If the model has no bottleneck with products.
    """
    bottlenecks = product_bottlenecks(model)
    groups = {'all': bottlenecks} | {name: {name: b} for name, b in bottlenecks.items()}
    for layer, group in groups.items():
        with replace_products(group, statistics):
            constant = evaluate(model)
        random = frozen = None
        if any(b.expansion.scorer is not None for b in group.values()):
            with randomize_selection(group):
                random = evaluate(model)
            with freeze_selection(group, statistics):
                frozen = evaluate(model)
        share = statistics[layer].share if layer in statistics else None
        yield ProductContribution(layer, share, constant, random, frozen)


@contextmanager
def replace_products(bottlenecks: Bottlenecks, statistics: Statistics) -> Iterator[None]:
    """Replaces products by a constant while the context lasts.

    What they contribute to the projection becomes its mean, one value for each output channel:
    of all constants the nearest to it in least squares.

    Args:
        bottlenecks: The bottlenecks whose products are replaced.
        statistics: The statistics of these bottlenecks, or of more.
    """

    def project(
        bottleneck: AdaptiveBottleneck,
        mean: Tensor,
        conv: nn.Module,
        inputs: tuple[Tensor],
        output: Tensor,
    ) -> Tensor:
        return split_projection(bottleneck, inputs[0])[0] + mean.to(output).view(-1, 1, 1)

    with _removed_at_the_end() as handles:
        for name, bottleneck in bottlenecks.items():
            hook = partial(project, bottleneck, statistics[name].mean_contribution)
            handles.append(bottleneck.projection.conv.register_forward_hook(hook))
        yield


@contextmanager
def randomize_selection(bottlenecks: Bottlenecks, seed: int = 0) -> Iterator[None]:
    """Has random channels selected for each image while the context lasts.

    Args:
        bottlenecks: The bottlenecks whose selection becomes random; a fixed one stays as it is.
        seed: The seed of the random scores.
    """
    generator = torch.Generator().manual_seed(seed)

    def score(scorer: nn.Module, inputs: tuple[Tensor], scores: Tensor) -> Tensor:
        return torch.rand(scores.shape, generator=generator, device='cpu').to(scores)

    with _removed_at_the_end() as handles:
        for bottleneck in bottlenecks.values():
            if bottleneck.expansion.scorer is not None:
                handles.append(bottleneck.expansion.scorer.register_forward_hook(score))
        yield


@contextmanager
def freeze_selection(bottlenecks: Bottlenecks, statistics: Statistics) -> Iterator[None]:
    """Has the same channels selected for all images while the context lasts.

    They are those with the highest mean scores, in falling order.

    Args:
        bottlenecks: The bottlenecks whose selection is frozen; a fixed one stays as it is.
        statistics: The statistics of these bottlenecks, or of more.
    """

    def score(
        mean_scores: Tensor, scorer: nn.Module, inputs: tuple[Tensor], scores: Tensor
    ) -> Tensor:
        return mean_scores.to(scores).expand(len(scores), -1)

    with _removed_at_the_end() as handles:
        for name, bottleneck in bottlenecks.items():
            if bottleneck.expansion.scorer is not None:
                hook = partial(score, statistics[name].mean_scores)
                handles.append(bottleneck.expansion.scorer.register_forward_hook(hook))
        yield


@contextmanager
def _removed_at_the_end() -> Iterator[list[RemovableHandle]]:
    handles: list[RemovableHandle] = []
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()
