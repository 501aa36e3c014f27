"""Choosing channels by their scores, with gradients for the scores."""

import torch
from torch import Tensor


def gumbel_noise(scores: Tensor) -> Tensor:
    """Draws standard Gumbel noise, -log(-log(u)) with u ~ Uniform(0, 1).

    -log(u) is a standard exponential variable; drawing that directly cannot hit the logarithm
    of zero. The draw uses torch's default generator of the device, so a seed fixes it.

    Args:
        scores: Any shape, floating dtype; gives shape, dtype and device.

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

    With soft = softmax((scores + noise) / temperature), the k largest values are chosen. Each
    chosen channel gets a scale that is exactly 1 and whose gradient is that of its soft value:
    the straight-through estimator m = hard + soft - stop_gradient(soft). Scores below single
    precision are chosen by in single precision.

    Source: arXiv 2505.22226, section 3 (selection by Gumbel top-k).

    Args:
        scores: Shape (B, C), floating dtype.
        k: Number of channels to choose, 1 <= k <= C.
        temperature: Positive scalar.
        noise: Shape (B, C). Drawn with :func:`gumbel_noise` if not given, in float32 at least.
        reverse_gradient: Use hard + stop_gradient(soft) - soft, as in the authors' released
            code: the gradient that reaches the scores is negated.

    Returns:
        ``indices``, shape (B, k), int64, in falling order of the soft value; and ``scale``,
        shape (B, k), dtype of ``scores``, all ones.

    Raises:
        ValueError: If ``scores`` is not (B, C), k is outside 1..C or ``noise`` has another shape.
    """
    _check_k(scores, k)
    # In half precision, noise has so few values that channels tie.
    exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if noise is None:
        noise = gumbel_noise(exact)
    elif noise.shape != scores.shape:
        raise ValueError(
            f'noise must have the shape of scores {tuple(scores.shape)}, got {tuple(noise.shape)}'
        )
    logits = exact + noise
    # The order of the softmax is that of its logits; at a low temperature the softmax itself
    # underflows to ties at zero.
    indices = logits.detach().topk(k, dim=1).indices
    soft = (logits / temperature).softmax(dim=1).gather(1, indices)
    difference = soft.detach() - soft if reverse_gradient else soft - soft.detach()
    return indices, (1 + difference).to(scores.dtype)


def gather_channels(x: Tensor, indices: Tensor) -> Tensor:
    """Takes for each image its own channels.

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
