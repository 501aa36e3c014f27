"""The expansion of Adaptive Cross-Hadamard in one step that needs little memory."""

import os
import warnings
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F  # noqa: N812

from . import expansion_torch
from .products import pairwise_products
from .selection import gather_channels

# Older versions cannot compile the kernels in bfloat16 for all GPUs.
_OLDEST_TRITON = (3, 3)


def append_products(
    u: Tensor, indices: Tensor, scale: Tensor, alpha: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """Appends the bounded pairwise products of a map's selected channels to the map.

    With z_r = scale_r u[indices_r] and q_p = z_i z_j for the pairs i < j in the order of
    :func:`pairwise_products`, it returns u and ``weight q' / (1 + |q'|) + bias`` with q' = alpha q
    (DySoft). The backward pass recomputes the products. The forward pass stores only the result,
    which a following convolution stores anyway. So the result must not be changed in place. Lower
    precisions are computed in single precision, and rounded once.

    CUDA devices of compute capability 7.0 and higher use Triton's kernels, if Triton 3.3 or later
    works there. It comes with torch 2.7 and later, and needs a C compiler and Python's headers.
    Other devices use torch's operations. With the environment variable HADAPTIVE_TRITON=0 all do.

    Source: arXiv 2505.22226 v2, section 3.

    Args:
        u: Shape (B, C, H, W), floating dtype.
        indices: Shape (B, s), int64, s >= 2, values in 0..C-1, different for each image.
        scale: Shape (B, s), floating dtype. All are ones. It only carries a gradient
            (:func:`~mmdet_hadaptive.ops.gumbel_top_k`).
        alpha: Shape (1,), floating dtype.
        weight: Shape (s(s-1)/2,), floating dtype.
        bias: Shape (s(s-1)/2,), floating dtype.

    Returns:
        Shape (B, C + s(s-1)/2, H, W), dtype and memory format of ``u``.

    Raises:
        ValueError: If HADAPTIVE_TRITON is neither 0 nor 1.
    """
    inputs = (u, indices, scale, alpha, weight, bias)
    # Graphs and fake tensors need torch's own operations, which a compiler fuses by itself.
    # Transforms (torch.func) and derivatives in forward mode have no rule for our function.
    if (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or type(u) is not Tensor
        or torch._C._are_functorch_transforms_active()
        or any(forward_ad.unpack_dual(value).tangent is not None for value in inputs)
    ):
        return append_products_composed(*inputs)
    return _AppendProducts.apply(*inputs)


def append_products_composed(
    u: Tensor, indices: Tensor, scale: Tensor, alpha: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """Computes :func:`append_products` as a composition of torch's operations.

    It needs more memory, but can be traced, compiled and differentiated any number of times.

    Args:
        u: Shape (B, C, H, W), floating dtype.
        indices: Shape (B, s), int64.
        scale: Shape (B, s), floating dtype.
        alpha: Shape (1,), floating dtype.
        weight: Shape (s(s-1)/2,), floating dtype.
        bias: Shape (s(s-1)/2,), floating dtype.

    Returns:
        Shape (B, C + s(s-1)/2, H, W), dtype of ``u``.
    """
    selected = gather_channels(u, indices) * scale[:, :, None, None].to(u.dtype)
    compute_dtype = torch.promote_types(u.dtype, torch.float32)
    bounded = F.softsign(alpha * pairwise_products(selected.to(compute_dtype)))
    products = bounded * weight[:, None, None] + bias[:, None, None]
    return torch.cat([u, products.to(u.dtype)], dim=1)


def find_kernels(u: Tensor) -> ModuleType:
    """Finds the implementation for a map.

    Args:
        u: Any tensor on the device.

    Returns:
        The module with Triton's kernels if they can run there. Else that with torch's operations.
    """
    if u.is_cuda and u.numel() and has_triton(u.device):
        from . import expansion_triton

        return expansion_triton
    return expansion_torch


@lru_cache
def has_triton(device: torch.device) -> bool:
    """Returns whether Triton's kernels can run on a CUDA device. It warns if they should but fail.

    Args:
        device: The CUDA device.

    Returns:
        False if the device or Triton is too old, if Triton is missing or cannot launch kernels, or
        if the environment variable HADAPTIVE_TRITON is 0.

    Raises:
        ValueError: If HADAPTIVE_TRITON is neither 0 nor 1.
    """
    wanted = os.environ.get('HADAPTIVE_TRITON', '1')
    if wanted not in ('0', '1'):
        raise ValueError(
            f'the environment variable HADAPTIVE_TRITON must be 0 or 1, got {wanted!r}: leave it '
            "unset to have Triton's kernels used where they can run"
        )
    usable = torch.version.hip is None and torch.cuda.get_device_capability(device) >= (7, 0)
    if wanted == '0' or not usable or not find_spec('triton'):
        return False
    try:
        return triton_version() >= _OLDEST_TRITON
    except Exception as error:
        warnings.warn(
            f"Triton does not work here, so that ACH uses torch's operations, which are slower: "
            f'{error}\nTriton needs a C compiler and the headers of Python; HADAPTIVE_TRITON=0 '
            'silences this warning',
            stacklevel=2,
        )
        return False


def triton_version() -> tuple[int, ...]:
    """Returns Triton's version, and lets it build its launcher of kernels.

    Returns:
        Major and minor number.

    Raises:
        Exception: Triton's error if it cannot build the launcher.
    """
    import triton

    version = tuple(map(int, triton.__version__.split('.')[:2]))
    if version >= _OLDEST_TRITON:
        _ = triton.runtime.driver.active.utils
    return version


class _AppendProducts(torch.autograd.Function):
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
        channels = u.shape[1]
        y = torch.empty(
            (len(u), channels + len(weight), *u.shape[2:]),
            dtype=u.dtype,
            device=u.device,
            memory_format=_memory_format(u),
        )
        y[:, :channels] = u
        find_kernels(u).expand(y, indices, scale, alpha, weight, bias)
        ctx.save_for_backward(y, indices, scale, alpha, weight, bias)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, indices, scale, alpha, weight, bias = ctx.saved_tensors
        channels = y.shape[1] - len(weight)
        if torch.is_grad_enabled():
            # Second derivatives are needed. The views separate these steps from those that computed
            # y, which depends on the same parameters.
            inputs = [v.view_as(v) for v in (y[:, :channels], scale, alpha, weight, bias)]
            composed = append_products_composed(inputs[0], indices, *inputs[1:])
            wanted = [value for value in inputs if value.requires_grad]
            grads = iter(torch.autograd.grad(composed, wanted, grad, create_graph=True))
            grad_u, *others = (next(grads) if value.requires_grad else None for value in inputs)
            return grad_u, None, *others
        grad_u = grad[:, :channels].clone(memory_format=_memory_format(y))
        grad_parameters = find_kernels(y).expand_backward(
            grad_u, grad, y, indices, scale, alpha, weight
        )
        parameters = (scale, alpha, weight, bias)
        casted = (g.to(p.dtype) for g, p in zip(grad_parameters, parameters, strict=True))
        return grad_u, None, *casted


def _memory_format(u: Tensor) -> torch.memory_format:
    channels_last = u.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format
