"""The scale of the loss in mixed precision, for hooks on gradients.

In float16 training torch's ``GradScaler`` multiplies the loss, so that small gradients do not
vanish, and divides the gradients before the optimizer's step. A hook on a gradient runs between
the two, and the scale is known to the scaler alone. Its method ``scale`` is therefore wrapped,
when this module is imported, to note the scale of each backward pass while that pass runs.
"""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Variable

_scales: list[Tensor] = []


def current_loss_scale() -> Tensor | float:
    """The factor of the loss in the backward pass that is running, 1 if it has none."""
    return _scales[-1] if _scales else 1.0


_torch_scale = torch.amp.GradScaler.scale


@functools.wraps(_torch_scale)
def _scale_and_note(scaler: Any, outputs: Any) -> Any:
    scaled = _torch_scale(scaler, outputs)
    losses = scaled if isinstance(scaled, (list, tuple)) else [scaled]
    for loss in losses:
        if scaler.is_enabled() and isinstance(loss, Tensor) and loss.requires_grad:
            # Scaling a one reads the scale without waiting for the device.
            factor = _torch_scale(scaler, torch.ones((), device=loss.device))
            loss.register_hook(functools.partial(_note, factor))
    return scaled


def _note(factor: Tensor, grad: Tensor) -> None:
    """Runs first in the backward pass of a scaled loss."""
    _scales[:] = [factor]
    Variable._execution_engine.queue_callback(_scales.clear)


torch.amp.GradScaler.scale = _scale_and_note
