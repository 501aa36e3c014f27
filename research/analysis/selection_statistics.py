"""Counts what Adaptive Cross-Hadamard layers select."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from mmdet_hadaptive.layers import AdaptiveCrossHadamard


def adaptive_layers(model: nn.Module) -> dict[str, AdaptiveCrossHadamard]:
    """The layers of a model that select by scores, by their names.

    Args:
        model: A backbone or a detector with one.

    Returns:
        In the order of the model; ``backbone.`` and ``.expansion`` are left out of the names.

    Raises:
        ValueError: If the model has no such layer.
    """
    layers = {
        name.removeprefix('module.').removeprefix('backbone.').removesuffix('.expansion'): module
        for name, module in model.named_modules()
        if isinstance(module, AdaptiveCrossHadamard) and module.scorer is not None
    }
    if not layers:
        raise ValueError(
            f'{type(model).__name__} has no AdaptiveCrossHadamard layer that selects by scores: '
            'use a HadaptiveNet backbone without ach_cfg.selection="fixed"'
        )
    return layers


class SelectionStatistics:
    """Counts what one layer selects.

    Attributes:
        num_images: Float scalar.
        pair_counts: (C, C), float32, symmetric: in how many images both channels were selected;
            on the diagonal, in how many the channel was.
        entropy_sum: Float scalar, summed over the images: the entropy of softmax(scores /
            temperature), divided by log C, so that 1 means that all channels score the same.
    """

    def __init__(self) -> None:
        self.num_images = torch.zeros(())
        self.pair_counts = torch.zeros(1, 1)
        self.entropy_sum = torch.zeros(())

    def update(self, scores: Tensor, indices: Tensor, temperature: Tensor) -> None:
        """Counts a batch.

        Args:
            scores: (B, C), floating dtype.
            indices: (B, s), int64: the selected channels.
            temperature: Scalar.
        """
        chosen = torch.zeros_like(scores, dtype=torch.float32).scatter_(1, indices, 1)
        log_soft = (scores.float() / temperature).log_softmax(dim=1)
        entropy = -(log_soft.exp() * log_soft).sum() / math.log(scores.shape[1])
        if self.pair_counts.shape != (scores.shape[1],) * 2:
            self.pair_counts = chosen.new_zeros(scores.shape[1], scores.shape[1])
        self.pair_counts += chosen.T @ chosen
        self.entropy_sum = self.entropy_sum.to(entropy) + entropy
        self.num_images = self.num_images.to(entropy) + len(scores)

    @property
    def channel_frequencies(self) -> Tensor:
        """(C,), in 0..1: in which part of the images each channel was selected."""
        return self.pair_counts.diagonal() / self.num_images

    @property
    def pair_frequencies(self) -> Tensor:
        """(C, C), in 0..1: in which part of the images each pair was; zeros on the diagonal."""
        return (self.pair_counts - self.pair_counts.diagonal().diag()) / self.num_images

    def scalars(self) -> dict[str, float]:
        """Entropy in 0..1, and how many channels and pairs are in use.

        The effective number is exp(entropy of the shares): n if n are selected equally often.
        """
        return dict(
            entropy=(self.entropy_sum / self.num_images).item(),
            effective_channels=_effective_number(self.channel_frequencies),
            effective_pairs=_effective_number(self.pair_frequencies.triu(1)),
        )


def _effective_number(frequencies: Tensor) -> float:
    shares = frequencies / frequencies.sum()
    return torch.special.entr(shares).sum().exp().item()


@contextmanager
def collect_statistics(
    layers: Mapping[str, AdaptiveCrossHadamard],
) -> Iterator[dict[str, SelectionStatistics]]:
    """Counts what layers select while the context lasts.

    Args:
        layers: The layers that :func:`adaptive_layers` returns.

    Yields:
        The statistics of each layer, filled by the forward passes.
    """
    statistics = {name: SelectionStatistics() for name in layers}

    def count(name: str, scores: Tensor, indices: Tensor) -> None:
        statistics[name].update(scores, indices, layers[name].temperature)

    with observe_selections(layers, count):
        yield statistics


@contextmanager
def observe_selections(
    layers: Mapping[str, AdaptiveCrossHadamard], observer: Callable[[str, Tensor, Tensor], None]
) -> Iterator[None]:
    """Watches selections while the context lasts.

    Args:
        layers: The layers that :func:`adaptive_layers` returns.
        observer: Called with the name of the layer, the scores (B, C) and the indices (B, s).
    """
    previous = {name: layer.on_selection for name, layer in layers.items()}
    for name, layer in layers.items():
        layer.on_selection = partial(observer, name)
    try:
        yield
    finally:
        for name, layer in layers.items():
            layer.on_selection = previous[name]
