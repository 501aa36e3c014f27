"""Times Adaptive Cross-Hadamard layers and backbones by turns (research/reports/performance.md)."""

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from hadaptive_runtime.onnx_session import create_session
from mmdet_hadaptive.export import fuse_for_inference
from mmdet_hadaptive.layers import AdaptiveCrossHadamard
from mmdet_hadaptive.ops import append_products, gumbel_top_k

from .cost_comparison import without_products
from .training_speed import Variant, make_training_step

Functions = dict[str, Callable[[], object]]
_SIDE_LENGTH = 320
_BATCH = 16


def make_eager_backbones() -> Functions:
    """Makes the fused small backbone and the plain one in PyTorch, one image of 320 x 320."""
    net = _backbone(type='HadaptiveNet', arch='small', out_indices=(3, 4))
    image = torch.randn(1, 3, _SIDE_LENGTH, _SIDE_LENGTH)
    fused = fuse_for_inference(net, image)
    return {
        'ours': torch.inference_mode()(lambda: fused(image)),
        'other': torch.inference_mode()(lambda: net(image)),
    }


def make_onnx_backbones(arch: str, threads: int, pruned: bool = False) -> Functions:
    """Makes a fused backbone and MMDetection's MobileNetV2 (as in its SSDLite) in ONNX Runtime.

    Args:
        arch: One of ``ARCHITECTURES``.
        threads: Threads of ONNX Runtime.
        pruned: Whether the backbone has lost its products.
    """
    net = _backbone(type='HadaptiveNet', arch=arch, out_indices=(3, 4))
    if pruned:
        net = without_products(net, _SIDE_LENGTH, _SIDE_LENGTH)
    ours = fuse_for_inference(net, torch.randn(1, 3, _SIDE_LENGTH, _SIDE_LENGTH))
    # The exporter and ONNX Runtime fold its batch normalisations.
    other = _backbone(type='MobileNetV2', out_indices=(4, 7))
    return {'ours': _onnx_runner(ours, threads), 'other': _onnx_runner(other, threads)}


def make_layers(channels: int, num_selected: int, side_length: int, whole: bool) -> Functions:
    """Makes forward and backward pass of ACH and of its obvious formulation, batch of 16.

    Args:
        channels: Channels C.
        num_selected: Selected channels s.
        side_length: Height and width of the map.
        whole: Whether the pointwise convolution, its normalisation and the scores belong to it,
            which are the same on both sides, or only what comes after them.
    """
    ach = AdaptiveCrossHadamard(channels, num_selected)
    norm = ach.product_norm
    x = torch.randn(_BATCH, channels, side_length, side_length, requires_grad=True)
    grad = torch.randn(_BATCH, ach.out_channels, side_length, side_length)
    scores = torch.randn(_BATCH, channels, requires_grad=True)
    inputs = [x, *(ach if whole else norm).parameters(), *([] if whole else [scores])]

    def obvious(u: Tensor, scores: Tensor) -> Tensor:
        indices, scale = gumbel_top_k(scores, num_selected, ach.temperature.clone())
        one_hot = F.one_hot(indices, channels).to(u.dtype) * scale[:, :, None]
        selected = (one_hot @ u.flatten(2)).unflatten(2, u.shape[2:])
        first, second = torch.triu_indices(num_selected, num_selected, 1)
        return torch.cat([u, norm(selected[:, first] * selected[:, second])], dim=1)

    def ours(u: Tensor, scores: Tensor) -> Tensor:
        indices, scale = gumbel_top_k(scores, num_selected, ach.temperature.clone())
        return append_products(u, indices, scale, norm.alpha, norm.weight, norm.bias)

    def step(expand: Callable[[Tensor, Tensor], Tensor]) -> None:
        u = ach.norm(ach.pointwise(x)) if whole else x
        y = expand(u, ach.scorer(u) if whole else scores)
        torch.autograd.grad(y, inputs, grad)

    return {'ours': lambda: step(ours), 'other': lambda: step(obvious)}


def make_kernels(
    channels: int,
    num_selected: int,
    side_length: int,
    *,
    dtype: torch.dtype,
    channels_last: bool,
    other: Literal['torch', 'copy'],
    batch: int = 1024,
    device: str = 'cuda',
) -> Functions:
    """Makes calls of Triton's kernels for ACH's products, forward and backward, and of others.

    Args:
        channels: Channels C.
        num_selected: Selected channels s.
        side_length: Height and width of the map.
        dtype: The dtype of the maps; parameters are in single precision.
        channels_last: Memory format of the maps.
        other: The same by torch's operations, or a copy that moves as many bytes as both passes
            must: what the bandwidth of the memory allows.
        batch: Images; so many that the maps fit in no cache and a launch costs little.
        device: The device that computes; the CPU in Triton's interpreter only.
    """
    # Triton is not everywhere.
    from mmdet_hadaptive.ops import expansion_torch, expansion_triton

    products = num_selected * (num_selected - 1) // 2
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    maps = dict(dtype=dtype, device=device, memory_format=memory_format)
    u = torch.empty(batch, channels, side_length, side_length, **maps).normal_()
    grad = torch.empty(batch, channels + products, side_length, side_length, **maps).normal_()
    indices = torch.rand(batch, channels, device=device).argsort()[:, :num_selected]
    scale = torch.ones(batch, num_selected, device=device)
    alpha = torch.full((1,), 0.5, device=device)
    weight, bias = torch.ones(products, device=device), torch.zeros(products, device=device)

    def step(implementation: ModuleType) -> None:
        y = torch.empty_like(grad)
        y[:, :channels] = u
        implementation.expand(y, indices, scale, alpha, weight, bias)
        grad_u = grad[:, :channels].clone(memory_format=memory_format)
        implementation.expand_backward(grad_u, grad, y, indices, scale, alpha, weight)

    # Forward, u is read and the result is written; backward, the gradient of the result and the
    # selected channels are read, and the gradient of u is written. A copy reads and writes.
    planes = (channels + channels + products) * 2 + num_selected
    source = torch.randn(batch * planes * side_length**2 // 2, dtype=dtype, device=device)
    target = torch.empty_like(source)
    sides = dict(torch=partial(step, expansion_torch), copy=partial(target.copy_, source))

    def finished(function: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            function()
            if u.is_cuda:
                torch.cuda.synchronize()

        return run

    return {'ours': finished(partial(step, expansion_triton)), 'other': finished(sides[other])}


def make_training_steps(config: Path) -> Functions:
    """Makes one training step of a detector and of MMDetection's SSDLite with MobileNetV2.

    Batch of 16 images of 320 x 320 with four random boxes each: forward pass, loss, backward
    pass, SGD; both in the memory format ``channels_last``.

    Args:
        config: The config of the detector.
    """
    init_default_scope('mmdet')
    settings = {
        'ours': Config.fromfile(config).model,
        'other': Config.fromstring(
            "_base_ = 'mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py'", '.py'
        ).model,
    }
    make = partial(
        make_training_step,
        variant=Variant(channels_last=True),
        batch=_BATCH,
        side_length=_SIDE_LENGTH,
    )
    return {name: make(model) for name, model in settings.items()}


def measure_peak_memory(function: Callable[[], object]) -> int:
    """Measures the most memory that a call holds at once on the CPU, by torch's profiler.

    Args:
        function: Leaves nothing behind and frees nothing of before.

    Returns:
        Bytes.
    """
    function()
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as profile:
        function()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'trace.json'
        profile.export_chrome_trace(str(file))
        events = json.loads(file.read_text())['traceEvents']
    changes = sorted((e['ts'], e['args']['Bytes']) for e in events if e['name'] == '[memory]')
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak


def _backbone(**config: Any) -> nn.Module:
    net = MODELS.build(config)
    _initialise(net)
    net.eval()
    return net


def _initialise(model: nn.Module) -> None:
    # MMEngine lists every parameter otherwise.
    MMLogger.get_current_instance().setLevel('ERROR')
    model.init_weights()


def _onnx_runner(net: nn.Module, threads: int) -> Callable[[], object]:
    image = torch.randn(1, 3, _SIDE_LENGTH, _SIDE_LENGTH)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'net.onnx'
        torch.onnx.export(net, (image,), str(file), dynamo=False, opset_version=17)
        session = create_session(file, threads)
    inputs = {session.get_inputs()[0].name: image.numpy()}
    return lambda: session.run(None, inputs)
