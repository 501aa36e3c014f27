"""Selects channels by their scores, with gradients for the scores."""

import torch
from torch import Tensor


def gumbel_noise(scores: Tensor) -> Tensor:
    """Draws standard Gumbel noise, -log(-log(u)) with u ~ Uniform(0, 1).

    -log(u) is a standard exponential variable. Drawing it directly avoids the logarithm of zero.
    The draw uses the device's default generator of torch, so a seed makes it reproducible.

    Args:
        scores: Any shape, floating dtype. The noise has the same shape, dtype and device.

    Returns:
        Finite noise like ``scores``, without gradient.
    """
    return -torch.empty_like(scores, requires_grad=False).exponential_().log()


def gumbel_top_k(
    scores: Tensor,
    k: int,
    temperature: Tensor | float,
    noise: Tensor | None = None,
    reverse_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """Draws k channels per image without replacement, with straight-through gradient.

    With soft = softmax((scores + noise) / temperature), the k largest values are selected. Each
    selected channel gets a scale of exactly 1 with the gradient of its soft value. This is the
    straight-through estimator m = hard + soft - stop_gradient(soft). Scores of lower precision are
    compared in single precision.

    Source: arXiv 2505.22226, section 3 (selection by Gumbel top-k).

    Args:
        scores: Shape (B, C), floating dtype.
        k: The number of channels to select, 1 <= k <= C.
        temperature: A positive scalar.
        noise: Shape (B, C). The default is :func:`gumbel_noise`, at least in float32.
        reverse_gradient: Whether to use hard + stop_gradient(soft) - soft, as in the authors'
            released code. It negates the gradient of the scores.

    Returns:
        ``indices``, shape (B, k), int64, with the highest soft value first. ``scale``, shape (B,
        k), dtype of ``scores``, all ones.

    Raises:
        ValueError: If ``scores`` is not (B, C), k is outside 1..C or ``noise`` has another shape.
    """
    _check_k(scores, k)
    # In half precision, noise has too few values: channels would have equal scores.
    exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if noise is None:
        noise = gumbel_noise(exact)
    elif noise.shape != scores.shape:
        raise ValueError(
            f'noise must have the shape of scores {tuple(scores.shape)}, got {tuple(noise.shape)}'
        )
    logits = exact + noise
    # The softmax has the order of its logits. At a low temperature the softmax itself would
    # underflow to zero for several channels.
    indices = logits.detach().topk(k, dim=1).indices
    soft = (logits / temperature).softmax(dim=1).gather(1, indices)
    difference = soft.detach() - soft if reverse_gradient else soft - soft.detach()
    return indices, (1 + difference).to(scores.dtype)


def gather_channels(x: Tensor, indices: Tensor) -> Tensor:
    """Selects different channels for each image.

    Args:
        x: Shape (B, C, H, W), any dtype.
        indices: Shape (B, k), int64, values in 0..C-1.

    Returns:
        Shape (B, k, H, W): ``x[b, indices[b, r]]`` at (b, r).
    """
    return x.gather(1, indices[:, :, None, None].expand(-1, -1, *x.shape[2:]))


def _check_k(scores: Tensor, k: int) -> None:
    if scores.dim() != 2:
        raise ValueError(f'scores must have the shape (B, C), got {tuple(scores.shape)}')
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f'k must be in 1..{scores.shape[1]} (the channels of scores), got {k}')
