"""Counts what a model costs."""

import torch
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
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    model.train(training)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # The counter counts a multiply-accumulate as two operations.
    return parameters, counter.get_total_flops() // 2
