"""Counts parameters and multiply-accumulates of a model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.structures import DetDataSample
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Costs:
    """The costs of a model.

    Attributes:
        parameters: The number of all parameters, also frozen ones, without buffers.
        macs: Multiply-accumulates for one image.
    """

    parameters: int
    macs: int


def count_costs(model: nn.Module, height: int, width: int) -> Costs:
    """Counts parameters and multiply-accumulates for one image.

    Only convolutions and matrix products count as multiply-accumulates, as in the literature on
    light networks. Normalisations, activations and the element-wise products of ACH do not count.
    A detector of MMDetection is counted without its post-processing. On torch's 'meta' device
    nothing is computed. This works for models whose operations do not depend on values.

    Args:
        model: A backbone, or a model of MMDetection or MMPretrain. Its mode is kept.
        height: The height of the image in pixels.
        width: The width of the image in pixels.

    Returns:
        The costs.
    """
    training = model.training
    model.eval()
    image = torch.zeros(1, 3, height, width, device=next(model.parameters()).device)
    inputs = (image,)
    if hasattr(model, 'data_preprocessor'):
        # Transformers read the size of the image in its batch.
        shape = (height, width)
        sample = DetDataSample(metainfo=dict(img_shape=shape, batch_input_shape=shape))
        inputs = (image, [sample])
    macs = count_macs(lambda: model(*inputs))
    model.train(training)
    return Costs(count_parameters(model), macs)


def count_parameters(model: nn.Module) -> int:
    """Counts all parameters of a model, also frozen ones, without buffers."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(run: Callable[[], Any]) -> int:
    """Counts the multiply-accumulates of a call without gradients.

    Args:
        run: The function to call.

    Returns:
        The multiply-accumulates of PyTorch's own convolutions and matrix products. Operators of
        mmcv, such as deformable convolutions, are not counted.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    # PyTorch counts a multiply-accumulate as two operations.
    return counter.get_total_flops() // 2
