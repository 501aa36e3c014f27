"""Selects channels with operations that every runtime has."""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ..layers import AdaptiveCrossHadamard
from .inference_layers import SelectedProducts

Model = TypeVar('Model', bound=nn.Module)

# A difference of scores becomes its sign by repeated multiplication and clipping, without overflow
# in half precision. All steps together find differences of 1e-16.
_STEP, _NUM_STEPS = 1e4, 4


def make_portable(fused: Model) -> Model:
    """Replaces the selection of channels in a fused model, for runtimes without TopK and gather.

    Args:
        fused: A model that :func:`fuse_for_inference` returned. It is changed.

    Returns:
        The same model. It takes one image at a time.

    Raises:
        ValueError: If the model has layers that could not be fused, because their normalisation is
            not a batch normalisation.
    """
    for name, module in list(fused.named_modules()):
        if isinstance(module, AdaptiveCrossHadamard):
            raise ValueError(
                f'{name} could not be fused: the portable selection needs batch normalisation'
            )
        for child_name, child in module.named_children():
            if isinstance(child, SelectedProducts):
                setattr(module, child_name, PortableProducts(child))
    return fused


class PortableProducts(nn.Module):
    """Computes :class:`SelectedProducts` of one image without TopK, gather and index_select.

    The rank of a channel is the number of channels with a higher score. If scores are equal, the
    first channel's counts as higher. The selection is a matrix times the map; the matrix has a one
    at each rank and its channel. Constant 1 x 1 convolutions make the pairs.

    Args:
        products: The layer that this one replaces. Both agree exactly if no scores are equal.
    """

    def __init__(self, products: SelectedProducts) -> None:
        super().__init__()
        self.pointwise = products.pointwise
        self.scorer = products.scorer
        self.num_selected = products.num_selected
        self.knee = products.knee
        weight = products.pointwise.weight
        channels = weight.shape[0]
        self.first = _make_choice(products.first, self.num_selected, weight)
        self.second = _make_choice(products.second, self.num_selected, weight)
        earlier = torch.ones(channels, channels).tril(-1).to(weight)[None]
        ranks = torch.arange(self.num_selected).to(weight).view(1, -1, 1)
        self.register_buffer('earlier', earlier, persistent=False)
        self.register_buffer('ranks', ranks, persistent=False)
        self.register_buffer('shift', products.shift[None])

    def forward(self, x: Tensor) -> Tensor:
        """Maps (1, C, H, W) to (1, C + P', H, W)."""
        u = self.pointwise(x)
        channels, height, width = u.shape[1:]
        if self.scorer is None:
            selected = u[:, : self.num_selected]
        else:
            choice = self.choose(self.scorer(x))
            selected = torch.matmul(choice, u.reshape(1, channels, height * width))
            selected = selected.reshape(1, self.num_selected, height, width)
        products = self.first(selected) * self.second(selected)
        if self.knee is not None:
            products = products / (products.abs() + self.knee)
        return torch.cat([u, products + self.shift], dim=1)

    def choose(self, scores: Tensor) -> Tensor:
        """Returns ones at the ranks of channels: (1, C) to (1, s, C)."""
        # Row i and column j have the sign of score j minus score i.
        sign = scores[:, None, :] - scores[:, :, None]
        for _ in range(_NUM_STEPS):
            sign = (sign * _STEP).clamp(-1, 1)
        rank = (sign + self.earlier).clamp(0, 1).sum(2)
        return (1 - (rank[:, None, :] - self.ranks).abs()).clamp(0, 1)


def _make_choice(indices: Tensor, num_inputs: int, weight: Tensor) -> nn.Conv2d:
    """Returns a 1 x 1 convolution that copies channels."""
    conv = nn.Conv2d(num_inputs, len(indices), 1, bias=False)
    chosen = F.one_hot(indices, num_inputs).to(weight)
    conv.weight = nn.Parameter(chosen[:, :, None, None], requires_grad=False)
    return conv
