"""Makes a backbone train two to four times as fast on one CPU core, with equal results.

torch's backward pass of depthwise convolutions, and of batch normalisation, takes most of a
training step. The C++ file beside this one does both with the channels side by side. Maps are
bfloat16, in which processors with AMX multiply matrices fast; weights and statistics stay float32.
"""

import hashlib
import platform
import tempfile
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from timm.layers import BatchNormAct2d, Conv2dSame, pad_same
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.cpp_extension import load

from mmdet_hadaptive.layers import AdaptiveCrossHadamard, ConvNormAct, ECAScorer

_NAME = 'hadaptive_fast_layers'


@cache
def extension() -> ModuleType:
    """The compiled C++ file; takes a minute the first time on a machine."""
    spec = spec_from_file_location(_NAME, compile_library())
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compile_library() -> Path:
    """Compiles the C++ file into the user's cache, if it is not there yet.

    Programs may do this at the same time.

    Returns:
        The library.
    """
    source = Path(__file__).with_suffix('.cpp')
    content = source.read_text() + torch.__version__ + platform.node()
    key = hashlib.sha256(content.encode()).hexdigest()[:16]
    library = Path.home() / '.cache/hadaptive' / f'{_NAME}-{key}.so'
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        flags = ['-O3', '-march=native', '-ffast-math', '-mprefer-vector-width=512']
        # Made aside: torch waits for ever for a compilation that was killed in its own folder.
        with tempfile.TemporaryDirectory(dir=library.parent) as aside:
            load(_NAME, [str(source)], extra_cflags=flags, build_directory=aside)
            (Path(aside) / f'{_NAME}.so').replace(library)
    return library


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        x = x.permute(0, 2, 3, 1).contiguous()
        w = weight.flatten(1).t().contiguous()
        ctx.save_for_backward(x, w)
        ctx.options = weight.shape[-1], stride, padding
        return extension().depthwise(x, w, *ctx.options).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        kernel = ctx.options[0]
        grad = grad.permute(0, 2, 3, 1).contiguous()
        gx, gw = extension().depthwise_backward(x, w, grad, *ctx.options)
        return gx.permute(0, 3, 1, 2), gw.t().reshape(-1, 1, kernel, kernel), None, None


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, act: bool, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = x.permute(0, 2, 3, 1).contiguous()
        y, mean, var = extension().norm(x, weight, bias, act, eps)
        ctx.save_for_backward(x, weight, bias, mean, var)
        ctx.options = act, eps
        ctx.mark_non_differentiable(mean, var)
        return y.permute(0, 3, 1, 2), mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, var = ctx.saved_tensors
        grad = grad.permute(0, 2, 3, 1).contiguous()
        gx, gw, gb = extension().norm_backward(x, grad, weight, bias, mean, var, *ctx.options)
        return gx.permute(0, 3, 1, 2), gw, gb, None, None


def norm_act(norm: nn.BatchNorm2d, x: Tensor, act: bool) -> Tensor:
    """Batch normalisation by the batch, in training mode, and a Hardswish if asked for."""
    y, mean, var = _NormAct.apply(x, norm.weight, norm.bias, act, norm.eps)
    with torch.no_grad():
        count = x.numel() / x.shape[1]
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(var * (count / (count - 1)), norm.momentum)
        norm.num_batches_tracked += 1
    return y


class FastConvNormAct(ConvNormAct):
    """A :class:`ConvNormAct` that is fast in training mode; its weights have the same names."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, H', W')."""
        if not self.training:
            return super().forward(x)
        conv = self.conv
        if conv.groups > 1:
            x = _Depthwise.apply(x, conv.weight, conv.stride[0], conv.padding[0])
        else:
            weight = conv.weight.to(x.dtype)
            x = F.conv2d(x, weight, None, conv.stride, conv.padding)
        return norm_act(self.norm, x, hasattr(self, 'act'))


class _FastNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return norm_act(self, x, False) if self.training else super().forward(x)


class _FastPointwise(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class _FastScorer(ECAScorer):
    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(dim=(2, 3), dtype=torch.float32)
        return self.conv(means.unsqueeze(1)).squeeze(1)


class _FastTimmConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        if self.groups > 1:
            return _Depthwise.apply(x, self.weight, self.stride[0], self.padding[0])
        return F.conv2d(x, self.weight.to(x.dtype), None, self.stride, self.padding)


class _FastTimmConvSame(Conv2dSame):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        return _FastTimmConv.forward(self, pad_same(x, self.kernel_size, self.stride))


class _FastTimmNorm(BatchNormAct2d):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(norm_act(self, x, False)) if self.training else super().forward(x)


def use_fast_layers(net: nn.Module) -> nn.Module:
    """Swaps a backbone's layers, in place; parameters and buffers stay what they are.

    Args:
        net: A Hadaptive-Net, or timm's EfficientNet-Lite0. In training mode it then takes maps of
            bfloat16 or float32, with their channels side by side (``torch.channels_last``).

    Returns:
        The same network.
    """
    for module in net.modules():
        if type(module) is ConvNormAct:
            module.__class__ = FastConvNormAct
        elif isinstance(module, AdaptiveCrossHadamard):
            module.pointwise.__class__ = _FastPointwise
            module.norm.__class__ = _FastNorm
        elif isinstance(module, ECAScorer):
            module.__class__ = _FastScorer
        elif isinstance(module, Conv2dSame):
            module.__class__ = _FastTimmConvSame
        elif isinstance(module, BatchNormAct2d):
            module.__class__ = _FastTimmNorm
            # autograd forbids to change in place what such a function returns.
            module.act = nn.ReLU6() if isinstance(module.act, nn.ReLU6) else module.act
        elif type(module) is nn.Conv2d:
            module.__class__ = _FastTimmConv
    return net.to(memory_format=torch.channels_last)


@HOOKS.register_module()
class FastLayersHook(Hook):
    """Trains a detector whose backbone has the fast layers, and maps of bfloat16.

    The rest of the detector, the evaluation and the checkpoints stay float32.
    """

    # Before the hook that copies the model to average its weights.
    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Swaps the layers."""
        backbone = use_fast_layers(runner.model.backbone)
        backbone.register_forward_pre_hook(_to_bfloat16)
        backbone.register_forward_hook(_to_float32)


def _to_bfloat16(net: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    (x,) = inputs
    return (x.bfloat16() if net.training else x,)


def _to_float32(net: nn.Module, inputs: tuple[Tensor], outputs: tuple[Tensor]) -> list[Tensor]:
    return [y.float() for y in outputs]
