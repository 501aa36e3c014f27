"""The expansion of Adaptive Cross-Hadamard in one step that stores next to nothing."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from .products import pairwise_products
from .selection import gather_channels


def append_products(
    u: Tensor, indices: Tensor, scale: Tensor, alpha: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """Appends to a map the bounded pairwise products of its selected channels.

    With z_r = scale_r u[indices_r] and q_p = z_i z_j for the pairs i < j in the order of
    :func:`pairwise_products`, it returns u and ``weight q' / (1 + |q'|) + bias`` with
    q' = alpha q (DySoft). The backward pass recomputes the products, and of the forward pass only
    the result is stored, which a convolution behind stores anyway: it must not be changed in
    place. Values below single precision are computed in single precision and rounded once.

    Source: arXiv 2505.22226 v2, section 3.

    Args:
        u: Shape (B, C, H, W), floating dtype.
        indices: Shape (B, s), int64, s >= 2, values in 0..C-1, no value twice in a row.
        scale: Shape (B, s), floating dtype. All ones: it only carries a gradient
            (:func:`~mmdet_hadaptive.ops.gumbel_top_k`).
        alpha: Shape (1,), floating dtype.
        weight: Shape (s(s-1)/2,), floating dtype.
        bias: Shape (s(s-1)/2,), floating dtype.

    Returns:
        Shape (B, C + s(s-1)/2, H, W), dtype and memory format of ``u``.
    """
    # A graph is to hold torch's own operations, which a compiler fuses by itself.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return _composed(u, indices, scale, alpha, weight, bias)
    return _AppendProducts.apply(u, indices, scale, alpha, weight, bias)


def _composed(
    u: Tensor, indices: Tensor, scale: Tensor, alpha: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """The same as a composition of torch's differentiable operations."""
    selected = (gather_channels(u, indices) * scale[:, :, None, None].to(u.dtype)).to(_wide(u))
    bounded = F.softsign(alpha * pairwise_products(selected))
    products = bounded * weight[:, None, None] + bias[:, None, None]
    return torch.cat([u, products.to(u.dtype)], dim=1)


def _wide(u: Tensor) -> torch.dtype:
    return torch.promote_types(u.dtype, torch.float32)


def _planes(u: Tensor, indices: Tensor) -> Tensor:
    """The selected channels as (s, B, H * W), in which any range of channels is one block."""
    return gather_channels(u, indices).transpose(0, 1).flatten(2).to(_wide(u)).contiguous()


class _AppendProducts(torch.autograd.Function):
    """Goes through the pairs by their first channel: what a step computes stays in the cache."""

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        indices: Tensor,
        scale: Tensor,
        alpha: Tensor,
        weight: Tensor,
        bias: Tensor,
    ) -> Tensor:
        channels, selected = u.shape[1], indices.shape[1]
        channels_last = u.is_contiguous(memory_format=torch.channels_last)
        y = torch.empty(
            (len(u), channels + len(weight), *u.shape[2:]),
            dtype=u.dtype,
            device=u.device,
            memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        )
        y[:, :channels] = u
        products = y[:, channels:].transpose(0, 1).flatten(2)
        z = _planes(u, indices) * scale.t()[:, :, None]
        weight_, bias_ = weight[:, None, None], bias[:, None, None]
        stop = 0
        for i in range(selected - 1):
            start, stop = stop, stop + selected - 1 - i
            scaled = z[i + 1 :] * (alpha * z[i])
            bounded = scaled.div_(scaled.abs().add_(1))
            out = products[start:stop]
            torch.addcmul(bias_[start:stop], bounded, weight_[start:stop], out=out)
        ctx.save_for_backward(y, indices, scale, alpha, weight, bias)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, indices, scale, alpha, weight, bias = ctx.saved_tensors
        channels, selected = y.shape[1] - len(weight), indices.shape[1]
        u = y[:, :channels]
        if torch.is_grad_enabled():
            # Gradients of gradients are asked for. The views keep these steps apart from those
            # that have led to y, which depends on the same parameters.
            inputs = [value.view_as(value) for value in (u, scale, alpha, weight, bias)]
            composed = _composed(inputs[0], indices, *inputs[1:])
            wanted = [value for value in inputs if value.requires_grad]
            grads = iter(torch.autograd.grad(composed, wanted, grad, create_graph=True))
            of_u, *others = (next(grads) if value.requires_grad else None for value in inputs)
            return of_u, None, *others
        planes = _planes(u, indices)
        factors = scale.t()[:, :, None]
        z = planes * factors
        grad_products = grad[:, channels:].transpose(0, 1).flatten(2)
        grad_z = torch.zeros_like(z)
        grad_weight = torch.empty_like(weight, dtype=z.dtype)
        weight_ = weight[:, None, None]
        stop = 0
        for i in range(selected - 1):
            start, stop = stop, stop + selected - 1 - i
            others = z[i + 1 :]
            scaled = others * (alpha * z[i])
            divisor = scaled.abs().add_(1)
            g = torch.div(grad_products[start:stop], divisor, out=torch.empty_like(divisor))
            grad_weight[start:stop] = scaled.mul_(g).sum((1, 2))
            g.div_(divisor).mul_(weight_[start:stop])
            grad_z[i] += torch.mul(others, g, out=scaled).sum(0)
            grad_z[i + 1 :].addcmul_(g, z[i])
        # Both factors of every product count it once.
        grad_alpha = (grad_z * z).sum().view(1) / 2
        grad_z *= alpha
        grad_u = grad[:, :channels].clone()
        grad_scale = (grad_z * planes).sum(2).t()
        rows = (grad_z * factors).transpose(0, 1).unflatten(2, u.shape[2:]).to(u.dtype)
        grad_u.scatter_add_(1, indices[:, :, None, None].expand_as(rows), rows)
        grad_bias = grad_products.sum((1, 2), dtype=z.dtype)
        return (
            grad_u,
            None,
            grad_scale.to(scale.dtype),
            grad_alpha.to(alpha.dtype),
            grad_weight.to(weight.dtype),
            grad_bias.to(bias.dtype),
        )
