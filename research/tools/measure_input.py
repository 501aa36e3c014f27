"""Compares the training pipelines of configs on one core: images per second, measured in turn.

With --draws it also compares what the first two draw.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config

import mmdet_hadaptive  # noqa: F401
from research.benchmark.input_pipeline import build_train_data, compare_draws, time_in_turn
from research.markdown import markdown_table


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='+', help='config files or mmdet::...; the first is 1')
    parser.add_argument('--data-root', type=Path, required=True, help='COCO, or a part of it')
    parser.add_argument('--rounds', type=int, default=30)
    parser.add_argument('--images', type=int, default=16, help='per round')
    parser.add_argument('--draws', type=int, default=0)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    if args.draws and len(args.configs) != 2:
        parser.error('--draws compares two configs')
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    np.random.seed(args.seed)

    configs = {}
    for name in args.configs:
        text = f'_base_ = {name!r}'
        configs[name] = Config.fromstring(text, '.py') if '::' in name else Config.fromfile(name)
    data = {name: build_train_data(config, args.data_root) for name, config in configs.items()}
    if args.rounds:
        times = time_in_turn(data, args.rounds, args.images)
        totals = {name: sum(steps.values()) for name, steps in times.items()}
        reference = totals[args.configs[0]]
        rows = []
        for name, total in totals.items():
            low, ratio, high = np.percentile(reference / total, (25, 50, 75))
            speed = f'{1 / np.median(total):.1f}'
            rows.append([name, speed, f'{ratio:.2f} ({low:.2f} to {high:.2f})'])
            rows += [
                [f'- {step}', f'{1e3 * np.median(seconds):.2f} ms', '']
                for step, seconds in times[name].items()
            ]
        print(markdown_table(['pipeline', 'images/s', 'ratio'], rows))
        print(
            f'\none core, medians of {args.rounds} rounds of {args.images} images in turn; ratios: '
            'medians and quartiles of the ratios within a round'
        )
    if args.draws:
        scale = configs[args.configs[0]].input_size
        first, second = data.values()
        found = compare_draws(first, second, args.draws, (scale, scale))
        rows = [
            [key, f'{one:.3f}', f'{two:.3f}', f'{distance:.4f}', f'{probability:.3f}']
            for key, (one, two, distance, probability) in found.items()
        ]
        print(markdown_table(['', 'mean, first', 'mean, second', 'KS distance', 'p'], rows))


if __name__ == '__main__':
    main()
