"""Measures which part of bottlenecks' outputs comes from products of channels."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ..layers import AdaptiveBottleneck, AdaptiveCrossHadamard


def product_bottlenecks(model: nn.Module) -> dict[str, AdaptiveBottleneck]:
    """Finds the bottlenecks that multiply channels.

    Args:
        model: A backbone or a detector, not fused.

    Returns:
        The bottlenecks by their names, in the model's order. The names have no ``backbone.``.

    Raises:
        ValueError: If the model has no such bottleneck.
    """
    bottlenecks = {
        name.removeprefix('module.').removeprefix('backbone.'): module
        for name, module in model.named_modules()
        if isinstance(module, AdaptiveBottleneck)
        and isinstance(module.expansion, AdaptiveCrossHadamard)
    }
    if not bottlenecks:
        raise ValueError(
            f'{type(model).__name__} has no AdaptiveBottleneck with products: use a HadaptiveNet '
            'backbone as it was trained, neither fused nor pruned'
        )
    return bottlenecks


def split_projection(bottleneck: AdaptiveBottleneck, h: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the contributions of channels and of products to the projection.

    The projection is linear before its normalisation, so its output is the sum of both.

    Args:
        bottleneck: One of :func:`product_bottlenecks`.
        h: The output of its activated depthwise convolution, shape (B, C + P, H, W).

    Returns:
        Two maps (B, out_channels, H, W): from the C channels (with the convolution's bias, if any),
        and from the P products.
    """
    conv = bottleneck.projection.conv
    channels = bottleneck.expansion.pointwise.out_channels
    return (
        F.conv2d(h[:, :channels], conv.weight[:, :channels], conv.bias),
        F.conv2d(h[:, channels:], conv.weight[:, channels:]),
    )


class ProductStatistics:
    """Collects statistics of the contribution of a bottleneck's products to its projection.

    The contribution is the part of the projection's output before its normalisation that comes from
    the products (:func:`split_projection`).

    Args:
        bottleneck: One of :func:`product_bottlenecks`.

    Attributes:
        sums: float64 tensors. Sums over images and positions are ``contribution`` and ``output``
            (out_channels,), and their squares, also summed over channels, ``contribution_squares``
            and ``output_squares``. ``scores`` (C,) is a sum over images. It stays 0 if the
            selection is fixed. ``images`` and ``positions`` are the numbers of terms.
    """

    def __init__(self, bottleneck: AdaptiveBottleneck) -> None:
        conv = bottleneck.projection.conv
        zeros = partial(torch.zeros, dtype=torch.float64, device=conv.weight.device)
        self.sums: dict[str, Tensor] = dict(
            images=zeros(()),
            positions=zeros(()),
            contribution=zeros(conv.out_channels),
            contribution_squares=zeros(()),
            output=zeros(conv.out_channels),
            output_squares=zeros(()),
            scores=zeros(bottleneck.expansion.pointwise.out_channels),
        )

    def update(self, contribution: Tensor, output: Tensor) -> None:
        """Adds a batch.

        Args:
            contribution: (B, out_channels, H, W), floating dtype.
            output: The output of the whole projection, of the same shape.
        """
        self.sums['images'] += len(output)
        self.sums['positions'] += output[:, 0].numel()
        for name, value in dict(contribution=contribution, output=output).items():
            value = value.detach().double()
            self.sums[name] += value.sum((0, 2, 3))
            self.sums[f'{name}_squares'] += value.square().sum()

    def update_scores(self, scores: Tensor) -> None:
        """Adds the scores (B, C) of a batch."""
        self.sums['scores'] += scores.detach().double().sum(0)

    @property
    def mean_contribution(self) -> Tensor:
        """The mean contribution over images and positions, (out_channels,), float64."""
        return self._mean('contribution', 'positions')

    @property
    def mean_scores(self) -> Tensor:
        """The mean scores over images, (C,), float64."""
        return self._mean('scores', 'images')

    @property
    def share(self) -> float:
        """The contribution's variance divided by the output's, both summed over channels.

        It is 0 if the contribution is constant. It may exceed 1, because products and channels may
        partly cancel each other.
        """
        return (self._variance('contribution') / self._variance('output')).item()

    def _variance(self, name: str) -> Tensor:
        mean = self._mean(name, 'positions')
        return self._mean(f'{name}_squares', 'positions') - mean.square().sum()

    def _mean(self, name: str, count: str) -> Tensor:
        if not self.sums[count]:
            raise ValueError('no image has been counted: run the model on training images first')
        return self.sums[name] / self.sums[count]


@contextmanager
def collect_product_statistics(
    bottlenecks: Mapping[str, AdaptiveBottleneck],
) -> Iterator[dict[str, ProductStatistics]]:
    """Collects the contributions of products while the context lasts.

    Args:
        bottlenecks: The bottlenecks, as :func:`product_bottlenecks` returns them.

    Yields:
        The statistics of each bottleneck. Forward passes fill them.
    """
    statistics = {name: ProductStatistics(b) for name, b in bottlenecks.items()}
    handles = []

    def count(name: str, conv: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        statistics[name].update(split_projection(bottlenecks[name], inputs[0])[1], output)

    def count_scores(name: str, scorer: nn.Module, inputs: tuple[Tensor], scores: Tensor) -> None:
        statistics[name].update_scores(scores)

    for name, bottleneck in bottlenecks.items():
        conv, scorer = bottleneck.projection.conv, bottleneck.expansion.scorer
        handles.append(conv.register_forward_hook(partial(count, name)))
        if scorer is not None:
            handles.append(scorer.register_forward_hook(partial(count_scores, name)))
    try:
        yield statistics
    finally:
        for handle in handles:
            handle.remove()
