"""Prints how fast the package is against what else one would use, as ratios of one run."""

import argparse
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch

import mmdet_hadaptive  # noqa: F401
from mmdet_hadaptive.benchmark import performance
from mmdet_hadaptive.benchmark.timing import measure_in_turn
from mmdet_hadaptive.ops import expansion

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

    rows = {'backbone S, fused / plain, PyTorch': performance.eager_backbone}
    for arch in ('small', 'medium', 'large'):
        name = f'backbone {arch[0].upper()} / MobileNetV2, ONNX Runtime'
        rows[name] = partial(performance.onnx_backbone, arch, args.threads)
    for name, shape in LAYERS.items():
        rows[f'ACH / one-hot, {name}'] = partial(performance.layer, *shape, whole=True)
        rows[f'ACH behind its scores / one-hot, {name}'] = partial(
            performance.layer, *shape, whole=False
        )
    if torch.cuda.is_available() and expansion.has_triton(torch.device('cuda')):
        for name, shape in LAYERS.items():
            for dtype, channels_last, other in product(DTYPES, (False, True), ('torch', 'copy')):
                layout = 'channels_last' if channels_last else 'contiguous'
                rows[f'GPU, Triton / {other}, {name}, {dtype}, {layout}'] = partial(
                    performance.kernels,
                    *shape,
                    dtype=dtype,
                    channels_last=channels_last,
                    other=other,
                )
    else:
        print('No CUDA device with Triton: the comparisons of kernels for it are left out.\n')
    rows['training step, SSDLite S / MobileNetV2'] = partial(performance.training_step, CONFIG)

    print('| ours / other | ours ms | other ms | ratio | quartiles | peak memory |')
    print('|---|---|---|---|---|---|')
    for name, make in rows.items():
        if not name.startswith(args.only):
            continue
        functions = make()
        seconds = measure_in_turn(functions, args.rounds, warmup=3)
        ours, other = (np.array(seconds[side]) for side in ('ours', 'other'))
        low, high = np.quantile(ours / other, (0.25, 0.75))
        memory = ''
        if name.startswith('ACH'):
            peaks = [performance.peak_memory(functions[side]) for side in ('ours', 'other')]
            memory = f'{peaks[0] / peaks[1]:.2f}'
        cells = [
            name,
            f'{np.median(ours) * 1e3:.2f}',
            f'{np.median(other) * 1e3:.2f}',
            f'{np.median(ours / other):.2f}',
            f'{low:.2f} - {high:.2f}',
            memory,
        ]
        print(f'| {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
    main()
