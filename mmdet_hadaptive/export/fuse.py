"""Fuses layers of a trained model for inference."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..layers import (
    AdaptiveBottleneck,
    AdaptiveCrossHadamard,
    ConvNormAct,
    DySoft,
    GhostExpansion,
)
from ..models import HadaptiveNet
from .inference_layers import SelectedProducts, SplitDepthwise

# The CPU kernels of ONNX Runtime and oneDNN work on blocks of channels. For other numbers of
# channels they use kernels that are several times slower.
_CHANNEL_MULTIPLE = 8
# Subclasses with their own forward compute something else, such as batch normalisations with an
# activation inside.
_NORM_FORWARDS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)

Model = TypeVar('Model', bound=nn.Module)


def fuse_for_inference(model: Model, example: Tensor | Mapping[str, Any]) -> Model:
    """Makes a faster copy of a model with the same predictions.

    - It folds a batch normalisation into the convolution before it, if nothing else reads that
      convolution's output. A run on the example shows this.
    - It joins two consecutive convolutions with nothing between them, if the second has no padding:
      the stem and the first convolution of stage 1 (unless the stem is an output), and the cheap
      and the depthwise convolution of Ghost bottlenecks of stride 2, if their kernels are 2 x 2.
    - :class:`AdaptiveCrossHadamard` scores its channels from the mean of its input, and the scales
      of its products go into the depthwise kernels behind it.

    All other layers stay as they are. Outputs are equal except for rounding, unless rounding
    changes which of two channels with nearly equal scores is selected. The copy uses the memory
    format ``channels_last``, which is faster on CPUs. It does not use it if the model has
    operations of mmcv such as RoIAlign and deformable convolution, because they read this format
    wrongly. The copy can be traced, exported and saved. It cannot be trained. Its ``state_dict``
    has other keys than the model's.

    Args:
        model: A detector or a backbone with weights of a floating dtype, on any device. It is not
            changed.
        example: The copy runs once on it. A tensor (B, 3, H, W) is for ``model(example)``. A dict
            is for MMEngine's ``model.test_step(example)``. Detectors whose ``forward`` needs more
            than images, such as two-stage ones, need the dict.

    Returns:
        The copy, in eval mode, without gradients.
    """
    fused = copy.deepcopy(model)
    # eval() of some of MMDetection's modules does not return the module.
    fused.eval()
    _separate_shared_convolutions(fused)
    _fold_norms(fused, example)
    for module in list(fused.modules()):
        if isinstance(module, HadaptiveNet):
            _fuse_stem(module)
        if isinstance(module, AdaptiveBottleneck) and _is_folded(module):
            _fuse_bottleneck(module)
    fused.requires_grad_(False)
    if not any(type(module).__module__.startswith('mmcv.ops') for module in fused.modules()):
        fused.to(memory_format=torch.channels_last)
    return fused


@torch.no_grad()
def _fold_norms(model: nn.Module, example: Tensor | Mapping[str, Any]) -> None:
    with _ReaderLog(model) as log:
        log.end(model.test_step(example) if isinstance(example, Mapping) else model(example))
    folded = set()
    for conv, norm in log.pairs():
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        folded.add(norm)
    for module in model.modules():
        for name, child in module._modules.items():
            if child in folded:
                module._modules[name] = nn.Identity()


@dataclass
class _Output:
    """An output of a convolution, and its readers. None stands for a reader that is not a layer."""

    value: Tensor
    conv: nn.Conv2d
    readers: list[nn.Module | None] = field(default_factory=list)


class _ReaderLog(TorchDispatchMode):
    """A context that records the readers of convolutions' outputs.

    Args:
        model: The model that runs in this context, in eval mode.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        # The layer of each tensor, by the tensor's identity. Only layers that compute nothing
        # except their operation are here.
        self.layers: dict[int, nn.Module] = {}
        for module in model.modules():
            is_norm = type(module).forward in _NORM_FORWARDS and module.running_mean is not None
            if is_norm or type(module).forward is nn.Conv2d.forward:
                for tensor in (*module.parameters(), *module.buffers()):
                    self.layers[id(tensor)] = module
        # By identity. The values are kept alive, so that no other tensor gets the same identity.
        self.outputs: dict[int, _Output] = {}
        self.sources: dict[nn.Module, set[nn.Module | None]] = {}
        self.read_elsewhere: set[nn.Module] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operation and records what it reads."""
        result = func(*args, **(kwargs or {}))
        reader = None
        if func is torch.ops.aten.convolution.default:
            reader = self.layers.get(id(args[1]))
        elif 'batch_norm' in str(func):
            reader = self.layers.get(id(args[3]))
        self._note((args, kwargs), reader)
        if isinstance(reader, nn.Conv2d):
            self.outputs[id(result)] = _Output(result, reader)
        elif reader is not None:
            source = self.outputs.get(id(args[0]))
            self.sources.setdefault(reader, set()).add(source and source.conv)
        return result

    def end(self, outputs: Any) -> None:
        """Records that the caller reads the model's outputs."""
        self._note(outputs, None)

    def _note(self, values: Any, reader: nn.Module | None) -> None:
        for value in tree_leaves(values):
            if id(value) in self.outputs:
                self.outputs[id(value)].readers.append(reader)
            owner = self.layers.get(id(value))
            if owner is not None and owner is not reader:
                self.read_elsewhere.add(owner)

    def pairs(self) -> list[tuple[nn.Conv2d, _BatchNorm]]:
        """Returns each convolution whose outputs only one normalisation reads, and this one."""
        readers: dict[nn.Conv2d, set[nn.Module | None]] = {}
        for output in self.outputs.values():
            # If an output has two readers, one of them cannot change it in place.
            only = output.readers[0] if len(output.readers) == 1 else None
            readers.setdefault(output.conv, set()).add(only)
        return [
            (conv, norm)
            for conv, (norm, *others) in readers.items()
            if not others
            and self.sources.get(norm) == {conv}
            and not self.read_elsewhere & {conv, norm}
        ]


def _separate_shared_convolutions(model: nn.Module) -> None:
    """Gives each use of a shared convolution its own copy.

    Some heads share convolutions between levels that have different normalisations.
    """
    seen = set()
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d):
                if child in seen:
                    setattr(module, name, copy.deepcopy(child))
                seen.add(child)


def _is_folded(*modules: nn.Module) -> bool:
    """Returns whether all normalisations of the modules' convolutions were folded."""
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
    """Returns whether a convolution can be joined to the one before it.

    It must have no padding, and its windows must not overlap.
    """
    return conv.padding == (0, 0) and conv.kernel_size == conv.stride


def _joined(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """Joins two convolutions, both dense or both depthwise, the second without padding."""
    outer, inner = second.weight.double(), first.weight.double()
    if first.groups > 1:
        outer = outer.transpose(0, 1)
    # Each value of the second kernel adds the first kernel, shifted by the first one's stride.
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
