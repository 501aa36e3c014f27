"""The expansion of Adaptive Cross-Hadamard as two Triton kernels, one for each direction.

Products are in registers only, except for the result. The backward pass reads the gradient of each
product for both of its factors, one soon after the other.
"""

import torch
import triton
from torch import Tensor
from triton import language as tl

# The number of elements in a tile: 16 for each thread of four warps.
_TILE = 2048


def expand(
    y: Tensor, indices: Tensor, scale: Tensor, alpha: Tensor, weight: Tensor, bias: Tensor
) -> None:
    """Computes :func:`.expansion_torch.expand` on a GPU, with the same arguments."""
    channels, products = y.shape[1] - len(weight), len(weight)
    maps = y.flatten(2)
    # Tiles are long in the direction that is contiguous in memory.
    rows, columns = (16, _TILE // 16) if y.is_contiguous() else (_TILE // 16, 16)
    grid = (triton.cdiv(maps.shape[2], columns), triton.cdiv(products, rows), len(y))
    with torch.cuda.device_of(y):
        expand_kernel[grid](
            *(maps, indices.contiguous(), scale.contiguous()),
            *(alpha, weight.contiguous(), bias.contiguous()),
            *(channels, indices.shape[1], products, maps.shape[2], *maps.stride()),
            COMPUTE_DTYPE=_compute_dtype(y),
            ROWS=rows,
            COLUMNS=columns,
        )


def expand_backward(
    grad_u: Tensor,
    grad: Tensor,
    y: Tensor,
    indices: Tensor,
    scale: Tensor,
    alpha: Tensor,
    weight: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Computes :func:`.expansion_torch.expand_backward` on a GPU, with the same arguments.

    All sums have a fixed order, so the result is deterministic.
    """
    products, selected = len(weight), indices.shape[1]
    channels = y.shape[1] - products
    maps, grad_maps, grad_u_maps = y.flatten(2), grad.flatten(2), grad_u.flatten(2)
    rows = triton.next_power_of_2(selected)
    columns = max(16, _TILE // rows)
    blocks = triton.cdiv(maps.shape[2], columns)
    # The sums over the positions of a block.
    options = dict(dtype=torch.promote_types(y.dtype, torch.float32), device=y.device)
    grad_selected = torch.empty((len(y), blocks, selected), **options)
    grad_weight = torch.empty((len(y), blocks, products), **options)
    grad_bias = torch.empty((len(y), blocks, products), **options)
    with torch.cuda.device_of(y):
        expand_backward_kernel[(selected, blocks, len(y))](
            *(grad_maps, maps, grad_u_maps, indices.contiguous(), scale.contiguous()),
            *(alpha, weight.contiguous(), grad_selected, grad_weight, grad_bias),
            *(channels, selected, products, maps.shape[2], blocks),
            *(*grad_maps.stride(), *maps.stride(), *grad_u_maps.stride()),
            COMPUTE_DTYPE=_compute_dtype(y),
            ROWS=rows,
            COLUMNS=columns,
            # The last axis is contiguous in memory.
            AXIS=0 if y.is_contiguous() else 1,
        )
    # The gradients of the selected channels times the channels, without alpha.
    grad_selected = grad_selected.sum(1)
    # Each product was counted once for both of its factors.
    grad_alpha = (grad_selected * scale).sum().view(1) / 2
    return grad_selected * alpha, grad_alpha, grad_weight.sum((0, 1)), grad_bias.sum((0, 1))


def _compute_dtype(y: Tensor) -> tl.dtype:
    return tl.float64 if y.dtype == torch.float64 else tl.float32


@triton.jit
def _first_of_product(product, selected):
    """Returns the index i of the first factor. Products of i start at i (2 s - i - 1) / 2."""
    half = selected - 0.5
    i = (half - tl.sqrt(tl.maximum(half * half - 2 * product, 0))).to(tl.int32)
    # The square root may be rounded wrongly.
    i = tl.where(i * (2 * selected - i - 1) // 2 > product, i - 1, i)
    return tl.where((i + 1) * (2 * selected - i - 2) // 2 <= product, i + 1, i)


@triton.jit
def expand_kernel(
    y,
    indices,
    scale,
    alpha,
    weight,
    bias,
    channels,
    selected,
    products,
    positions,
    y_image,
    y_channel,
    y_position,
    COMPUTE_DTYPE: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    COLUMNS: tl.constexpr,  # noqa: N803
):
    """Writes ROWS products at COLUMNS positions of one image."""
    image = tl.program_id(2).to(tl.int64)
    product = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None]
    column = (tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    valid = product < products
    inside = valid & (column < positions)
    y += image * y_image + column * y_position

    i = _first_of_product(product, selected)
    j = product - i * (2 * selected - i - 1) // 2 + i + 1
    channel_i = tl.load(indices + image * selected + i, mask=valid, other=0)
    channel_j = tl.load(indices + image * selected + j, mask=valid, other=0)
    z_i = tl.load(y + channel_i * y_channel, mask=inside, other=0).to(COMPUTE_DTYPE)
    z_j = tl.load(y + channel_j * y_channel, mask=inside, other=0).to(COMPUTE_DTYPE)
    z_i *= tl.load(scale + image * selected + i, mask=valid, other=0).to(COMPUTE_DTYPE)
    z_j *= tl.load(scale + image * selected + j, mask=valid, other=0).to(COMPUTE_DTYPE)
    scaled = z_j * (tl.load(alpha).to(COMPUTE_DTYPE) * z_i)
    bounded = scaled / (1 + tl.abs(scaled))
    bounded *= tl.load(weight + product, mask=valid, other=0).to(COMPUTE_DTYPE)
    bounded += tl.load(bias + product, mask=valid, other=0).to(COMPUTE_DTYPE)
    tl.store(y + (channels + product) * y_channel, bounded.to(y.dtype.element_ty), mask=inside)


@triton.jit
def expand_backward_kernel(
    grad,
    y,
    grad_u,
    indices,
    scale,
    alpha,
    weight,
    grad_selected,
    grad_weight,
    grad_bias,
    channels,
    selected,
    products,
    positions,
    blocks,
    grad_image,
    grad_channel,
    grad_position,
    y_image,
    y_channel,
    y_position,
    grad_u_image,
    grad_u_channel,
    grad_u_position,
    COMPUTE_DTYPE: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    COLUMNS: tl.constexpr,  # noqa: N803
    AXIS: tl.constexpr,  # noqa: N803
):
    """Sums the gradients of one selected channel from all its products, at COLUMNS positions.

    The other channels are along AXIS of a tile, the positions along the other axis.
    """
    i = tl.program_id(0)
    block = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    column = tl.expand_dims(block * COLUMNS + tl.arange(0, COLUMNS), AXIS)
    within = column < positions
    y += image * y_image + column * y_position
    grad += image * grad_image + column * grad_position
    grad_u += image * grad_u_image + column * grad_u_position

    j = tl.expand_dims(tl.arange(0, ROWS), 1 - AXIS)
    valid = (j < selected) & (j != i)
    inside = valid & within
    low, high = tl.minimum(i, j), tl.maximum(i, j)
    product = low * (2 * selected - low - 1) // 2 + high - low - 1

    channel = tl.load(indices + image * selected + i)
    factor = tl.load(scale + image * selected + i).to(COMPUTE_DTYPE)
    others = tl.load(indices + image * selected + j, mask=valid, other=0)
    u_i = tl.load(y + channel * y_channel, mask=within, other=0).to(COMPUTE_DTYPE)
    z_j = tl.load(y + others * y_channel, mask=inside, other=0).to(COMPUTE_DTYPE)
    z_j *= tl.load(scale + image * selected + j, mask=valid, other=0).to(COMPUTE_DTYPE)
    grad_product = tl.load(grad + (channels + product) * grad_channel, mask=inside, other=0)
    grad_product = grad_product.to(COMPUTE_DTYPE)

    slope = tl.load(alpha).to(COMPUTE_DTYPE)
    scaled = z_j * (slope * (factor * u_i))
    divisor = 1 + tl.abs(scaled)
    g = grad_product / divisor
    # The channel with the lower index writes the sums for the product's own parameters.
    own = (image * blocks + block) * products + product
    tl.store(grad_weight + own, tl.sum(scaled * g, 1 - AXIS, keep_dims=True), mask=valid & (j > i))
    tl.store(grad_bias + own, tl.sum(grad_product, 1 - AXIS, keep_dims=True), mask=valid & (j > i))

    g = g / divisor * tl.load(weight + product, mask=valid, other=0).to(COMPUTE_DTYPE)
    grad_z = tl.sum(g * z_j, AXIS, keep_dims=True)
    tl.store(grad_selected + (image * blocks + block) * selected + i, tl.sum(grad_z * u_i))
    grad_u += channel * grad_u_channel
    total = tl.load(grad_u, mask=within, other=0).to(COMPUTE_DTYPE) + grad_z * slope * factor
    tl.store(grad_u, total.to(grad_u.dtype.element_ty), mask=within)
