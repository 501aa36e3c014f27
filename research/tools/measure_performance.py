"""Prints how fast the package is against what else one would use, as ratios of one run."""

import argparse
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

import mmdet_hadaptive  # noqa: F401
from mmdet_hadaptive.ops.expansion import has_triton
from research.benchmark import performance
from research.markdown import markdown_table
from research.timing import measure_in_turn

CONFIG = Path(__file__).resolve().parents[2] / 'configs/ssdlite'
CONFIG /= 'ssdlite_hadaptive-s_8xb24-600e_coco.py'
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LAYERS = {'C=96, s=16, 20x20': (96, 16, 20), 'C=128, s=32, 10x10': (128, 32, 10)}


def main() -> None:
    """Measures one comparison after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=30, help='timed calls of each side')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--only', default='', help='rows whose name begins with this')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    comparisons = {
        name: make
        for name, make in list_comparisons(args.threads).items()
        if name.startswith(args.only)
    }
    rows = [
        measure(name, make(), args.rounds)
        for name, make in track(comparisons.items(), 'measuring', transient=True)
    ]
    headings = ('ours / other', 'ours ms', 'other ms', 'ratio', 'quartiles', 'peak memory')
    print(markdown_table(headings, rows))


def list_comparisons(threads: int) -> dict[str, Callable[[], performance.Functions]]:
    """Lists what can be compared on this machine: names, and what makes both sides."""
    comparisons = {'backbone S, fused / plain, PyTorch': performance.make_eager_backbones}
    for arch in ('small', 'medium', 'large'):
        name = f'backbone {arch[0].upper()} / MobileNetV2, ONNX Runtime'
        comparisons[name] = partial(performance.make_onnx_backbones, arch, threads)
        name = f'backbone {arch[0].upper()} without products / MobileNetV2, ONNX Runtime'
        comparisons[name] = partial(performance.make_onnx_backbones, arch, threads, pruned=True)
        name = f'backbone {arch[0].upper()}-ir / MobileNetV2, ONNX Runtime'
        comparisons[name] = partial(performance.make_onnx_backbones, f'{arch}-ir', threads)
    for name, shape in LAYERS.items():
        make = partial(performance.make_layers, *shape)
        comparisons[f'ACH / one-hot, {name}'] = partial(make, whole=True)
        comparisons[f'ACH behind its scores / one-hot, {name}'] = partial(make, whole=False)
    if torch.cuda.is_available() and has_triton(torch.device('cuda')):
        choices = product(LAYERS.items(), DTYPES, (False, True), ('torch', 'copy'))
        for (name, shape), dtype, channels_last, other in choices:
            layout = 'channels_last' if channels_last else 'contiguous'
            comparisons[f'GPU, Triton / {other}, {name}, {dtype}, {layout}'] = partial(
                performance.make_kernels,
                *shape,
                dtype=dtype,
                channels_last=channels_last,
                other=other,
            )
    else:
        print('No CUDA device with Triton: the comparisons of kernels for it are left out.\n')
    name = 'training step, SSDLite S / MobileNetV2'
    comparisons[name] = partial(performance.make_training_steps, CONFIG)
    return comparisons


def measure(name: str, functions: performance.Functions, rounds: int) -> list[str]:
    """Measures both sides of a comparison, and returns the cells of its row."""
    seconds = measure_in_turn(functions, rounds, warmup=3)
    ours, other = (np.array(seconds[side]) for side in ('ours', 'other'))
    low, high = np.quantile(ours / other, (0.25, 0.75))
    memory = ''
    if name.startswith('ACH'):
        peaks = [performance.measure_peak_memory(functions[side]) for side in ('ours', 'other')]
        memory = f'{peaks[0] / peaks[1]:.2f}'
    return [
        name,
        f'{np.median(ours) * 1e3:.2f}',
        f'{np.median(other) * 1e3:.2f}',
        f'{np.median(ours / other):.2f}',
        f'{low:.2f} - {high:.2f}',
        memory,
    ]


if __name__ == '__main__':
    main()
