"""The expansion of Adaptive Cross-Hadamard by few, large operations of torch.

For one image u (C, H, W) with s selected channels it equals::

    z = u[indices] * scale[:, None, None]
    first, second = torch.triu_indices(s, s, 1)
    bounded = F.softsign(alpha * z[first] * z[second])
    products = bounded * weight[:, None, None] + bias[:, None, None]
    y = torch.cat([u, products])

The functions below compute it with fewer passes over the memory. The selected channels form a
circle: row (d - 1) s + i holds the product of the channels i and (i + d) mod s, for
d = 1..s // 2. So the second factors of all rows are one view of the channels and need no copy. If s
is even, the last s / 2 rows repeat other products.
"""

from collections.abc import Iterator
from math import ceil

import torch
from torch import Tensor

from .selection import gather_channels

# The number of elements for one operation. On a CPU they fit into the cache for the next operation.
# They are so many that the call of an operation costs little.
BLOCK_SIZE = 2**19
_BLOCK_SIZE_ELSEWHERE = 2**24


def expand(
    y: Tensor, indices: Tensor, scale: Tensor, alpha: Tensor, weight: Tensor, bias: Tensor
) -> None:
    """Writes the products of a map's first channels behind these channels.

    Args:
        y: Shape (B, C + s(s-1)/2, H, W), floating dtype. The first C channels are read, the others
            written.
        indices: Shape (B, s), int64.
        scale: Shape (B, s), floating dtype.
        alpha: Shape (1,), floating dtype.
        weight: Shape (s(s-1)/2,), floating dtype.
        bias: Shape (s(s-1)/2,), floating dtype.
    """
    channels, selected = y.shape[1] - len(weight), indices.shape[1]
    z = _select(y[:, :channels], indices) * scale[:, :, None]
    rows = _pair_of_row(selected, y.device)[: len(weight)].argsort()
    products = y[:, channels:].flatten(2)
    for images, (scaled, divisor) in _blocks(z):
        own = z[images]
        torch.mul(_circle(own), (alpha * own)[:, None], out=scaled)
        torch.abs(scaled, out=divisor).add_(1)
        scaled.div_(divisor)
        bounded = divisor.flatten(1, 2)[:, : len(weight)]
        torch.index_select(scaled.flatten(1, 2), 1, rows, out=bounded)
        torch.add(bounded.mul_(weight[:, None]), bias[:, None], out=products[images])


def expand_backward(
    grad_u: Tensor,
    grad: Tensor,
    y: Tensor,
    indices: Tensor,
    scale: Tensor,
    alpha: Tensor,
    weight: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Computes the gradients of :func:`expand`.

    Args:
        grad_u: Shape (B, C, H, W). The gradient that reaches the channels through the products is
            added to it.
        grad: The gradient of ``y``, with its shape. The first C channels are not read.
        y: The map, as for :func:`expand`. Only the first C channels are read.
        indices: Shape (B, s), int64.
        scale: Shape (B, s), floating dtype.
        alpha: Shape (1,), floating dtype.
        weight: Shape (s(s-1)/2,), floating dtype.

    Returns:
        The gradients of scale, alpha, weight and bias, at least in single precision.
    """
    channels, selected = y.shape[1] - len(weight), indices.shape[1]
    u = _select(y[:, :channels], indices)
    z = u * scale[:, :, None]
    pairs = _pair_of_row(selected, y.device)
    # Repeated rows count once.
    weights = weight[pairs]
    weights[len(weight) :] = 0
    weights = weights.view(-1, selected, 1)
    grad_products = grad[:, channels:].flatten(2)
    grad_rows = z.new_zeros(len(pairs))
    # With room for the channels i + d beyond the end.
    grad_z = z.new_zeros(len(z), selected + selected // 2, z.shape[2])
    for images, (scaled, slope) in _blocks(z):
        own, grad_own = z[images], grad_z[images]
        others = _circle(own)
        g = grad_products[images].index_select(1, pairs).to(z.dtype).view(scaled.shape)
        torch.mul(others, (alpha * own)[:, None], out=scaled)
        torch.abs(scaled, out=slope).add_(1).reciprocal_()
        g.mul_(slope)
        grad_rows += scaled.mul_(g).sum((0, 3)).flatten()
        g.mul_(slope).mul_(weights)
        torch.sum(torch.mul(g, others, out=scaled), 1, out=grad_own[:, :selected])
        for distance in range(1, selected // 2 + 1):
            shifted = grad_own[:, distance : distance + selected]
            shifted.addcmul_(g[:, distance - 1], own)
    grad_z, beyond = grad_z.split((selected, selected // 2), dim=1)
    grad_z[:, : selected // 2] += beyond
    # Each product was counted once for both of its factors.
    grad_alpha = (grad_z * z).sum().view(1) / 2
    grad_z *= alpha
    grad_selected = (grad_z * scale[:, :, None]).unflatten(2, y.shape[2:]).to(y.dtype)
    grad_u.scatter_add_(1, indices[:, :, None, None].expand_as(grad_selected), grad_selected)
    grad_bias = grad_products.sum((0, 2), dtype=z.dtype)
    return (grad_z * u).sum(2), grad_alpha, grad_rows[pairs[: len(weight)].argsort()], grad_bias


def _select(u: Tensor, indices: Tensor) -> Tensor:
    """Returns the selected channels, shape (B, s, H W), at least in single precision."""
    compute_dtype = torch.promote_types(u.dtype, torch.float32)
    return gather_channels(u, indices).flatten(2).to(compute_dtype)


def _pair_of_row(selected: int, device: torch.device) -> Tensor:
    """Returns the index in ``pairwise_products`` for each row of the circle."""
    first = torch.arange(selected, device=device)
    second = (first + torch.arange(1, selected // 2 + 1, device=device)[:, None]) % selected
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    return (low * (2 * selected - low - 1) // 2 + high - low - 1).flatten()


def _circle(z: Tensor) -> Tensor:
    """Returns the channels i + d for all d and i, shape (B, s // 2, s, H W), from (B, s, H W)."""
    batch, selected, positions = z.shape
    twice = torch.cat([z, z[:, : selected // 2]], dim=1)
    image, channel, position = twice.stride()
    shape = (batch, selected // 2, selected, positions)
    return twice.as_strided(shape, (image, channel, channel, position), channel)


def _blocks(z: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yields parts of the images of z, with two buffers for all their products."""
    batch, selected, positions = z.shape
    circle = selected // 2 * selected * positions
    limit = BLOCK_SIZE if z.device.type == 'cpu' else _BLOCK_SIZE_ELSEWHERE
    images = max(1, ceil(batch / max(1, ceil(batch * circle / limit))))
    buffers = z.new_empty(2, images, selected // 2, selected, positions)
    for start in range(0, batch, images):
        yield slice(start, start + images), buffers[:, : batch - start]
