"""Weights as the package keeps them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def pack_weights(state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> dict[str, Any]:
    """Makes of a model's weights what is kept in the package.

    Args:
        state: The ``state_dict`` of the model.
        meta: What is to be known of them: plain data.

    Returns:
        ``dict(meta, state_dict)``, tensors of two and more dimensions in float16.

    Raises:
        ValueError: If a weight is not finite, or is not in float16; names it.
    """
    packed = {}
    for name, value in state.items():
        packed[name] = value.half() if value.is_floating_point() and value.ndim > 1 else value
        if not packed[name].isfinite().all():
            raise ValueError(
                f'{name} has values of up to {value.abs().max()}, float16 ends at 65504'
            )
    return dict(meta=dict(meta), state_dict=packed)
