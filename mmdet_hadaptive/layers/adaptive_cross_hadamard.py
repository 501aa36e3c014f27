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
# Norms are never negative: no backward pass has been seen yet.
_NO_NORM_YET = -1.0


class AdaptiveCrossHadamard(nn.Module):
    """Appends to its channels the pairwise products of those that score highest.

    1. ``u = norm(pointwise(x))``, a 1x1 convolution that keeps the number of channels.
    2. :class:`ECAScorer` scores the channels of ``u``.
    3. ``num_selected`` channels are chosen per image: the highest scores in eval mode, Gumbel
       top-k with straight-through gradient in training mode.
    4. Their pairwise products are normalised and concatenated to ``u``.

    The temperature of the selection follows its own rule (section 3 of the paper): after each
    backward pass it grows by 0.5 % if the gradient norm of the scorer's kernel did not fall
    against the pass before, and shrinks by 0.5 % if it did, within [0.01, 4]. A hook on the
    kernel's gradient does this, so that it works in any training loop and whenever gradients
    are cleared; frozen layers and layers in eval mode have no such gradient and keep their
    temperature. Of several processes each has a part of the batch; the rule follows the mean of
    their gradients, so that their temperatures stay equal: as with ``SyncBatchNorm``, all processes
    must run the backward pass. A gradient that is not finite, as after an overflow in mixed
    precision, leaves the temperature and the stored norm alone. The gradient is taken as the
    backward pass gives it: where ``GradScaler`` changes the scale of the loss, one step compares
    two scales.

    Source: arXiv 2505.22226 v2, section 3.

    Args:
        in_channels: Channels C of the input.
        num_selected: Number s of channels to choose, 2 <= s <= C.
        product_norm: Makes the normalisation of the s(s-1)/2 products.
        norm_layer: Makes the normalisation for a number of channels.
        straight_through: 'standard' for the estimator as the paper describes it, 'reversed' for
            the negated gradient to the scores that the authors' released code computes.
        selection: 'adaptive' as described, or 'fixed' for the first ``num_selected`` channels of
            every image, without scores (the paper's ablation; as the pointwise convolution may
            put any channel there, which ones are fixed does not matter).
        adapt_temperature: Whether the temperature follows its rule or stays as it is.

    Attributes:
        out_channels: C + s(s-1)/2.
        scorer: The :class:`ECAScorer`; None if the selection is fixed.
        temperature: Buffer, float32 scalar, initially 4.
        last_grad_norm: Buffer, float32 scalar: the L2 norm of the kernel's gradient in the last
            backward pass, -1 before the first.
        on_selection: Called in each forward pass, if set, with the scores (B, C) and the indices
            (B, s) of the selected channels, both without gradient. Not copied with the layer.

    Raises:
        ValueError: If ``num_selected``, ``straight_through`` or ``selection`` is not one of those.
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
        # The kernel that the rule hangs on, and the handle of its hook.
        self._watched: tuple[Tensor, Any] | None = None

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Expands the channels.

        Args:
            x: Shape (B, C, H, W), floating dtype.
            noise: Shape (B, C): Gumbel noise for the selection in training mode, drawn from
                torch's generator if not given. Not used in eval mode.

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
        """Indices (B, s) of the chosen channels, and ones (B, s) that carry their gradient."""
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
                # A copy, because the rule writes to the buffer while a graph may still need it.
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
        """Names the selection."""
        selection = 'fixed' if self.scorer is None else 'adaptive'
        return (
            f'num_selected={self.num_selected}, selection={selection!r}, '
            f'straight_through={self.straight_through!r}, '
            f'adapt_temperature={self.adapt_temperature}'
        )

    def _find_kernel(self) -> nn.Parameter:
        """The scorer's kernel, or the parameter that it is computed from in each forward pass.

        Pruning and parametrisations make another tensor of ``scorer.conv.weight`` each time.
        """
        return next(self.scorer.parameters())

    def _is_watched(self, kernel: nn.Parameter) -> bool:
        """Whether the rule is hooked to the kernel that is in use now.

        Looked up in every forward pass, because copies of a parameter (deepcopy, pickle) and
        parameters that replace it come without its hooks.
        """
        return self._watched is not None and self._watched[0] is kernel

    # A compiled graph would add the hook again each time it runs.
    @torch.compiler.disable
    def _watch_gradient(self, kernel: nn.Parameter) -> None:
        if self._watched is not None:
            self._watched[1].remove()
        self._watched = (kernel, kernel.register_hook(self.update_temperature))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {'_watched': None, 'on_selection': None}

    @torch.no_grad()
    def update_temperature(self, grad: Tensor) -> None:
        """Applies the temperature rule; a hook calls it in each backward pass.

        Args:
            grad: Gradient of the scorer's kernel, of its shape.
        """
        grad = grad.float()
        if distributed.is_available() and distributed.is_initialized():
            # The optimizer gets the gradient itself.
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
