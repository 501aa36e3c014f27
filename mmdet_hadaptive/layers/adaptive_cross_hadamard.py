"""Adaptive Cross-Hadamard: channel expansion by learned pairwise products."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn

from ..ops import append_products, gather_channels, gumbel_top_k, pairwise_products
from .dysoft import DySoft
from .eca import ECAScorer

_MIN_TEMPERATURE = 0.01
_MAX_TEMPERATURE = 4.0
_TEMPERATURE_STEP = 0.005
# Norms are never negative. This value means that there was no backward pass yet.
_NO_NORM_YET = -1.0


class AdaptiveCrossHadamard(nn.Module):
    """Appends the pairwise products of the channels with the highest scores.

    1. ``u = norm(pointwise(x))``, a 1x1 convolution that keeps the number of channels.
    2. :class:`ECAScorer` scores the channels of ``u``.
    3. ``num_selected`` channels are selected for each image: the highest scores in eval mode,
       Gumbel top-k with a straight-through gradient in training mode.
    4. Their pairwise products are normalised and concatenated to ``u``.

    The temperature of the selection has its own rule (section 3 of the paper). After each backward
    pass, the gradient norm of the scorer's kernel is compared with that of the previous pass. If it
    is smaller, the temperature shrinks by 0.5 %, else it grows by 0.5 %. It stays in [0.01, 4]. A
    hook on the kernel's gradient does this, so it works in any training loop. Frozen layers and
    layers in eval mode have no gradient and keep their temperature. With several processes, the
    rule uses the mean of their gradients, so their temperatures stay equal. As with
    ``SyncBatchNorm``, all processes must run the backward pass. A gradient that is not finite, as
    after an overflow in mixed precision, changes neither the temperature nor the stored norm. The
    gradient includes the scale of the loss. When ``GradScaler`` changes this scale, one step
    compares two scales.

    Source: arXiv 2505.22226 v2, section 3.

    Args:
        in_channels: The number C of input channels.
        num_selected: The number s of channels to select, 2 <= s <= C.
        product_norm: Makes the normalisation of the s(s-1)/2 products.
        norm_layer: Makes the normalisation for a number of channels.
        straight_through: 'standard' for the paper's estimator. 'reversed' negates the gradient of
            the scores, as in the authors' released code.
        selection: 'adaptive' as described. 'fixed' selects the first ``num_selected`` channels of
            every image, without scores (the paper's ablation). The pointwise convolution can learn
            any order, so the choice of fixed channels does not matter.
        adapt_temperature: Whether the temperature follows its rule. Else it is constant.

    Attributes:
        out_channels: C + s(s-1)/2.
        scorer: The :class:`ECAScorer`. None if the selection is fixed.
        temperature: Buffer, float32 scalar, initially 4.
        last_grad_norm: Buffer, float32 scalar. The L2 norm of the kernel's gradient in the last
            backward pass, or -1 before the first.
        on_selection: If set, each forward pass calls it with the scores (B, C) and the indices
            (B, s) of the selected channels, both without gradient. Copies of the layer do not have
            it.

    Raises:
        ValueError: If ``num_selected``, ``straight_through`` or ``selection`` has another value.
    """

    def __init__(
        self,
        in_channels: int,
        num_selected: int,
        product_norm: Callable[[int], nn.Module] = DySoft,
        norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
        straight_through: Literal['standard', 'reversed'] = 'standard',
        selection: Literal['adaptive', 'fixed'] = 'adaptive',
        adapt_temperature: bool = True,
    ) -> None:
        super().__init__()
        if not 2 <= num_selected <= in_channels:
            raise ValueError(
                f'num_selected must be in 2..{in_channels} (in_channels), got {num_selected}'
            )
        if straight_through not in ('standard', 'reversed'):
            raise ValueError(
                f"straight_through must be 'standard' or 'reversed', got {straight_through!r}"
            )
        if selection not in ('adaptive', 'fixed'):
            raise ValueError(f"selection must be 'adaptive' or 'fixed', got {selection!r}")
        num_products = num_selected * (num_selected - 1) // 2
        self.num_selected = num_selected
        self.straight_through = straight_through
        self.adapt_temperature = adapt_temperature
        self.out_channels = in_channels + num_products
        self.pointwise = nn.Conv2d(in_channels, in_channels, 1)
        self.norm = norm_layer(in_channels)
        self.scorer = ECAScorer() if selection == 'adaptive' else None
        self.product_norm = product_norm(num_products)
        self.register_buffer('temperature', torch.tensor(_MAX_TEMPERATURE))
        self.register_buffer('last_grad_norm', torch.tensor(_NO_NORM_YET))
        self.on_selection: Callable[[Tensor, Tensor], None] | None = None
        # The kernel with the rule's hook, and the handle of the hook.
        self._watched: tuple[Tensor, Any] | None = None

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Expands the channels.

        Args:
            x: Shape (B, C, H, W), floating dtype.
            noise: Shape (B, C), Gumbel noise for the selection in training mode. By default it is
                drawn from torch's generator. It is not used in eval mode.

        Returns:
            Shape (B, C + s(s-1)/2, H, W).
        """
        u = self.norm(self.pointwise(x))
        indices, scale = self._select(u, noise)
        norm = self.product_norm
        if isinstance(norm, DySoft):
            return append_products(u, indices, scale, norm.alpha, norm.weight, norm.bias)
        selected = gather_channels(u, indices) * scale[:, :, None, None]
        return torch.cat([u, norm(pairwise_products(selected))], dim=1)

    def _select(self, u: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the selected indices (B, s), and ones (B, s) that carry their gradient."""
        ones = u.new_ones(u.shape[0], self.num_selected)
        if self.scorer is None:
            return torch.arange(self.num_selected, device=u.device).expand(u.shape[0], -1), ones
        scores = self.scorer(u)
        if self.training:
            kernel = self._find_kernel()
            if self.adapt_temperature and kernel.requires_grad and not self._is_watched(kernel):
                self._watch_gradient(kernel)
            indices, scale = gumbel_top_k(
                scores,
                self.num_selected,
                # A copy, because the rule changes the buffer while a graph may still need the old
                # value.
                self.temperature.clone(),
                noise,
                reverse_gradient=self.straight_through == 'reversed',
            )
        else:
            indices, scale = scores.topk(self.num_selected, dim=1).indices, ones
        if self.on_selection is not None:
            self.on_selection(scores.detach(), indices)
        return indices, scale

    def extra_repr(self) -> str:
        """Returns the selection for the layer's ``repr``."""
        selection = 'fixed' if self.scorer is None else 'adaptive'
        return (
            f'num_selected={self.num_selected}, selection={selection!r}, '
            f'straight_through={self.straight_through!r}, '
            f'adapt_temperature={self.adapt_temperature}'
        )

    def _find_kernel(self) -> nn.Parameter:
        """Returns the scorer's kernel, or the parameter that it is computed from.

        Pruning and parametrisations compute a new ``scorer.conv.weight`` in each forward pass.
        """
        return next(self.scorer.parameters())

    def _is_watched(self, kernel: nn.Parameter) -> bool:
        """Returns whether the current kernel has the rule's hook.

        Each forward pass checks this, because copies of a parameter (deepcopy, pickle) and
        parameters that replace it have no hooks.
        """
        return self._watched is not None and self._watched[0] is kernel

    # A compiled graph would add the hook again in each run.
    @torch.compiler.disable
    def _watch_gradient(self, kernel: nn.Parameter) -> None:
        if self._watched is not None:
            self._watched[1].remove()
        self._watched = (kernel, kernel.register_hook(self.update_temperature))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {'_watched': None, 'on_selection': None}

    @torch.no_grad()
    def update_temperature(self, grad: Tensor) -> None:
        """Applies the temperature rule. A hook calls it in each backward pass.

        Args:
            grad: The gradient of the scorer's kernel, with its shape.
        """
        grad = grad.float()
        if distributed.is_available() and distributed.is_initialized():
            # The optimizer gets the unchanged gradient.
            grad = grad.clone()
            distributed.all_reduce(grad)
            grad /= distributed.get_world_size()
        norm = grad.norm()
        last = self.last_grad_norm
        factor = 1 + torch.where(norm >= last, _TEMPERATURE_STEP, -_TEMPERATURE_STEP)
        adapted = (self.temperature * factor).clamp(_MIN_TEMPERATURE, _MAX_TEMPERATURE)
        finite = norm.isfinite()
        self.temperature.copy_(torch.where(finite & (last >= 0), adapted, self.temperature))
        self.last_grad_norm.copy_(torch.where(finite, norm, last))
