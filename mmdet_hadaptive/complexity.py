"""Counts what a model costs."""

from collections.abc import Callable
from typing import Any

import torch
from mmdet.structures import DetDataSample
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_costs(model: nn.Module, height: int, width: int) -> tuple[int, int]:
    """Counts trainable parameters and multiply-accumulates for one image.

    Only convolutions and matrix products count as multiply-accumulates, as in the tables of
    the literature on light networks; normalisations, activations and the element-wise products
    of ACH do not. An MMDetection detector is counted without its post-processing.

    Args:
        model: A backbone, or a detector of MMDetection. Its mode is kept.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        The number of trainable parameters, and of multiply-accumulates.
    """
    training = model.training
    model.eval()
    image = torch.zeros(1, 3, height, width, device=next(model.parameters()).device)
    inputs = (image,)
    if hasattr(model, 'data_preprocessor'):
        # Transformers ask how large the image is within its batch.
        shape = (height, width)
        sample = DetDataSample(metainfo=dict(img_shape=shape, batch_input_shape=shape))
        inputs = (image, [sample])
    macs = count_macs(lambda: model(*inputs))
    model.train(training)
    return sum(p.numel() for p in model.parameters() if p.requires_grad), macs


def count_macs(run: Callable[[], Any]) -> int:
    """Counts the multiply-accumulates of a call, made without gradients.

    Args:
        run: What is counted.

    Returns:
        The multiply-accumulates of PyTorch's own convolutions and matrix products; operators of
        mmcv, such as deformable convolutions, are not seen.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    # The counter counts a multiply-accumulate as two operations.
    return counter.get_total_flops() // 2
