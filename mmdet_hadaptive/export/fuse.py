"""Fuses what a trained model computes in several steps."""

import copy
from typing import TypeVar

import torch
from mmcv.cnn.utils.fuse_conv_bn import fuse_conv_bn
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import (
    AdaptiveBottleneck,
    AdaptiveCrossHadamard,
    ConvNormAct,
    DySoft,
    GhostExpansion,
)
from ..models import HadaptiveNet
from .inference_layers import SelectedProducts, SplitDepthwise

# The CPU kernels of ONNX Runtime and oneDNN work on blocks of channels; where these do not fit they
# fall back to kernels that are several times slower.
_CHANNEL_MULTIPLE = 8

Model = TypeVar('Model', bound=nn.Module)


def fuse_for_inference(model: Model) -> Model:
    """Copies a model into one that predicts the same, faster.

    - Batch normalisations are folded into the convolutions before them, everywhere.
    - Of two convolutions in a row without anything between them, the second without padding, one
      is made: the stem and the first convolution of stage 1 (unless the stem is an output), and
      the cheap and the depthwise convolution of Ghost bottlenecks of stride 2, if their kernels are
      2 x 2.
    - :class:`AdaptiveCrossHadamard` scores its channels from the mean of its input, and the
      scales of its products go into the depthwise kernels behind it.

    Layers whose normalisation is not a batch normalisation keep it and stay as they are. Outputs
    are equal up to rounding, as long as rounding does not change which of two channels with nearly
    equal scores is selected. The copy uses the memory format ``channels_last``, the faster one on
    CPUs; it can be traced, exported and saved whole, and it cannot be trained. Its ``state_dict``
    has other keys than that of the model.

    Args:
        model: A detector or a backbone with weights of a floating dtype, on any device. It is
            not changed.

    Returns:
        The copy, in eval mode, without gradients.
    """
    fused = copy.deepcopy(model)
    # Some of MMDetection's modules do not return themselves from eval().
    fused.eval()
    _separate_shared_convolutions(fused)
    fuse_conv_bn(fused)
    for module in list(fused.modules()):
        if isinstance(module, HadaptiveNet):
            _fuse_stem(module)
        if isinstance(module, AdaptiveBottleneck) and _is_folded(module):
            _fuse_bottleneck(module)
    fused.requires_grad_(False)
    return fused.to(memory_format=torch.channels_last)


def _separate_shared_convolutions(model: nn.Module) -> None:
    """Gives every place a convolution of its own.

    Some heads share convolutions between levels that have normalisations of their own.
    """
    seen = set()
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d):
                if child in seen:
                    setattr(module, name, copy.deepcopy(child))
                seen.add(child)


def _is_folded(*modules: nn.Module) -> bool:
    """Whether no convolution in the modules has a normalisation left."""
    layers = (layer for module in modules for layer in module.modules())
    return all(isinstance(layer.norm, nn.Identity) for layer in layers if hasattr(layer, 'norm'))


def _fuse_stem(net: HadaptiveNet) -> None:
    if 0 in net.out_indices:
        return
    last, first = net.stem[-1], net.stage1[0]
    if not (isinstance(last, ConvNormAct) and isinstance(first, ConvNormAct)):
        return
    if not hasattr(last, 'act') and _can_follow(first.conv) and _is_folded(last, first):
        first.conv = _joined(last.conv, first.conv)
        net.stem[-1] = nn.Identity()


def _fuse_bottleneck(block: AdaptiveBottleneck) -> None:
    expansion, depthwise, projection = block.expansion, block.depthwise, block.projection
    if isinstance(expansion, GhostExpansion) and _can_follow(depthwise.conv):
        weights, biases = depthwise.conv.weight.chunk(2), depthwise.conv.bias.chunk(2)
        primary, cheap = (
            _convolution(weight, bias, depthwise.conv.stride, groups=len(weight))
            for weight, bias in zip(weights, biases, strict=True)
        )
        block.expansion = expansion.primary
        block.depthwise = SplitDepthwise(
            primary, _joined(expansion.cheap.conv, cheap), depthwise.act
        )
    elif isinstance(expansion, AdaptiveCrossHadamard) and isinstance(
        expansion.product_norm, (DySoft, _BatchNorm)
    ):
        block.expansion = SelectedProducts(expansion, _CHANNEL_MULTIPLE)
        width = block.expansion.out_channels
        surplus = width - expansion.out_channels
        scale = block.expansion.scale.view(-1, 1, 1, 1)
        conv = depthwise.conv
        depthwise.conv = _convolution(
            F.pad(conv.weight, (0, 0, 0, 0, 0, 0, 0, surplus)) * scale,
            F.pad(conv.bias, (0, surplus)),
            conv.stride,
            conv.padding,
            groups=width,
        )
        conv = projection.conv
        projection.conv = _convolution(F.pad(conv.weight, (0, 0, 0, 0, 0, surplus)), conv.bias)


def _can_follow(conv: nn.Conv2d) -> bool:
    """Whether a convolution can be joined to the one before it.

    It sees no border of zeros, and its windows lie side by side.
    """
    return conv.padding == (0, 0) and conv.kernel_size == conv.stride


def _joined(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """One convolution for two, both dense or both depthwise, the second without padding."""
    outer, inner = second.weight.double(), first.weight.double()
    if first.groups > 1:
        outer = outer.transpose(0, 1)
    # Each value of the second kernel puts the first one down, a stride of the first apart.
    weight = F.conv_transpose2d(outer, inner, stride=first.stride, groups=first.groups)
    if first.groups > 1:
        weight = weight.transpose(0, 1)
    bias = (
        second.bias
        + F.conv2d(
            first.bias.double().view(1, -1, 1, 1).expand(-1, -1, *second.kernel_size),
            second.weight.double(),
            groups=second.groups,
        ).flatten()
    )
    stride = tuple(a * b for a, b in zip(first.stride, second.stride, strict=True))
    return _convolution(
        weight.to(second.weight), bias.to(second.weight), stride, first.padding, first.groups
    )


def _convolution(
    weight: Tensor,
    bias: Tensor,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> nn.Conv2d:
    conv = nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], weight.shape[2:], stride, padding, groups=groups
    )
    conv.weight = nn.Parameter(weight)
    conv.bias = nn.Parameter(bias)
    return conv
