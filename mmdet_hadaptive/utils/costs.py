"""Counts parameters and multiply-accumulates of a model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .configs import find_pipelines, type_name


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


def input_size(config: Config, model: nn.Module) -> tuple[int, int]:
    """Finds the size of a config's test images.

    Args:
        config: A config of MMDetection or MMPretrain.
        model: The model of this config. It may pad images.

    Returns:
        Height and width in pixels.

    Raises:
        ValueError: If the test pipeline neither resizes nor crops.
    """
    steps = [step for steps in find_pipelines(config.test_dataloader) for step in steps]
    sized = [step for step in steps if type_name(step['type']) in ('Resize', 'CenterCrop')]
    if not sized:
        raise ValueError(
            'the test pipeline says no size, it has neither Resize nor CenterCrop: add one to '
            'test_dataloader.dataset.pipeline, though it changes nothing'
        )
    last = sized[-1]
    size = last.get('scale', last.get('crop_size'))
    width, height = (size, size) if isinstance(size, int) else size
    divisor = model.data_preprocessor.pad_size_divisor
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


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
