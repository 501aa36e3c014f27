"""Measures training steps of SSDLite on a GPU, in several precisions, against other backbones.

For each way to train: images per second of one device, those of the first config by those of the
others, and the hours that the 600 epochs of COCO take on several devices. --data-root also measures
what the input pipeline delivers.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from rich.progress import track

import mmdet_hadaptive  # noqa: F401
from research.benchmark.input_pipeline import build_train_data, time_in_turn
from research.benchmark.training_speed import VARIANTS, hours_on_coco, make_training_step
from research.markdown import markdown_table
from research.timing import measure_in_turn

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
DEFAULT = (
    'ssdlite/ssdlite_hadaptive-s_8xb24-600e_coco.py',
    'baselines/ssdlite_mobilenetv2_8xb24-600e_coco.py',
    'baselines/ssdlite_ghostnet_8xb24-600e_coco.py',
)


def main() -> None:
    """Prints the table, a row for each way to train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='*', type=Path, default=[CONFIGS / c for c in DEFAULT])
    parser.add_argument('--device', default='cuda')
    parser.add_argument(
        '--devices', type=int, default=8, help='devices that train together, for the hours'
    )
    parser.add_argument('--batch-size', type=int, default=24, help='batch size of each device')
    parser.add_argument('--side-length', type=int, default=320)
    parser.add_argument('--rounds', type=int, default=30)
    parser.add_argument('--backend', default='inductor', help='backend of torch.compile')
    parser.add_argument('--only', nargs='*', choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument('--data-root', type=Path, help='COCO, or a part of it')
    parser.add_argument('--cores', type=int, default=64, help='cores that load data, for the hours')
    args = parser.parse_args()
    torch.manual_seed(0)
    configs = [Config.fromfile(path) for path in args.configs]
    init_default_scope('mmdet')
    names = [path.stem.split('_')[1] for path in args.configs]
    sizes = dict(batch=args.batch_size, side_length=args.side_length)
    rows = []
    for kind in track(args.only, 'measuring', transient=True):
        steps = {
            index: make_training_step(
                config.model, VARIANTS[kind], **sizes, device=args.device, backend=args.backend
            )
            for index, config in enumerate(configs)
        }
        seconds = np.array(list(measure_in_turn(steps, args.rounds, warmup=3).values()))
        speeds = args.batch_size / np.median(seconds, axis=1)
        ratios = np.median(seconds / seconds[0], axis=1)
        others = [f'{speed:.1f} ({ratio:.2f})' for speed, ratio in zip(speeds, ratios, strict=True)]
        hours = hours_on_coco(args.devices * speeds[0])
        rows.append([kind, f'{speeds[0]:.1f}', *others[1:], f'{hours:.1f}'])
    if args.data_root:
        data = {names[0]: build_train_data(configs[0], args.data_root)}
        (steps,) = time_in_turn(data, args.rounds, images_per_round=12).values()
        speed = args.cores / np.median(sum(steps.values()))
        blank = [''] * len(names[1:])
        rows.append(
            [f'input of {args.cores} cores', f'{speed:.1f}', *blank, f'{hours_on_coco(speed):.1f}']
        )
    device = torch.cuda.get_device_name() if args.device.startswith('cuda') else 'CPU'
    headings = [f'{device}: images/s', names[0], *(f'{name} (ratio)' for name in names[1:])]
    print(markdown_table([*headings, f'hours, {args.devices} devices'], rows))


if __name__ == '__main__':
    main()
