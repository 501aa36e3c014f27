"""Trains a suite of configs with several seeds and prints the table; resumes where it stopped."""

import argparse
from pathlib import Path

from mmengine.config import Config

from mmdet_hadaptive.datasets import make_shapes
from research.benchmark.accuracy import (
    Run,
    data_root_options,
    tabulate_comparison,
    train_all,
)
from research.benchmark.pretrained_options import pretrained_options
from research.markdown import markdown_table

ROOT = Path(__file__).resolve().parents[2]
SHAPES = 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'
BCCD = 'configs/ssdlite/ssdlite_hadaptive-s_bccd.py'
INVERTED_RESIDUALS = 'configs/ssdlite/ssdlite_hadaptive-s-ir_bccd.py'
ABLATIONS = ('reversed-sign', 'fixed-selection', 'constant-temperature', 'bn-products')
HADAPTIVE = [f'hadaptive-{size}{blocks}' for blocks in ('', '-ir') for size in 'sml']
# The cheapest to train come first.
BASELINES = (
    'mobilenetv3-small',
    'ghostnet',
    'mobilenetv4-conv-small',
    'repghostnet',
    'mobilenetv3-large',
    'efficientnet-lite0',
    'mobilenetv2',
    'starnet-s1',
    'ghostnetv3',
)


def of_coco(detector: str, schedule: str) -> list[str]:
    """All backbones in a detector."""
    return [
        f'{folder}_{name}_{schedule}_coco.py'
        for folder, names in (
            (f'configs/{detector}/{detector}', HADAPTIVE),
            (f'research/configs/baselines/{detector}', BASELINES),
        )
        for name in names
    ]


# Per suite, configs (the first is what the others are compared with) and seeds.
SUITES = {
    'ablation-shapes': (
        [
            SHAPES,
            *(
                f'research/configs/ablation/ssdlite_hadaptive-s-{name}_shapes.py'
                for name in ABLATIONS
            ),
        ],
        (0, 1, 2),
    ),
    'ablation-bccd': (
        [BCCD, 'research/configs/ablation/ssdlite_hadaptive-s-reversed-sign_bccd.py'],
        (0, 1),
    ),
    'bccd': (
        [
            BCCD,
            INVERTED_RESIDUALS,
            *(f'research/configs/baselines/ssdlite_{name}_bccd.py' for name in BASELINES),
        ],
        (0, 1),
    ),
    'tiny-imagenet': (
        [
            f'research/configs/pretrain/{name}_1xb128-15e_tiny-imagenet.py'
            for name in (
                *('hadaptive-s-ir', 'hadaptive-s'),
                *('ghostnet', 'mobilenetv4-conv-small', 'mobilenetv3-large'),
            )
        ],
        (0,),
    ),
    'coco-ssdlite': (of_coco('ssdlite', '8xb24-600e'), (0,)),
    'coco-retinanet': (of_coco('retinanet', 'fpn_1x'), (0,)),
}
# Detector, input, mAP and whose figure it is.
PUBLISHED = (
    ('SSD, Hadaptive-Net-L', 'not given', 23.2, "the paper's authors"),
    ('SSDLite, MobileNetV2, 600 epochs from scratch', '320', 21.3, 'MMDetection'),
    ('SSDLite, MobileNetV3-Large', '320', 21.3, 'torchvision'),
    ('RetinaNet, GhostNet 1.1x', '1333 x 800', 26.6, "GhostNet's authors"),
    ('RetinaNet, MobileNetV3', '1333 x 800', 26.4, "GhostNet's authors"),
    ('RetinaNet, MobileNetV2', '1333 x 800', 26.7, "GhostNet's authors"),
    ('RetinaNet, ResNet-18, 1x', '1333 x 800', 31.7, 'MMDetection'),
)


def main() -> None:
    """Runs the suites that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--suite', nargs='+', required=True, choices=SUITES)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/benchmark'))
    parser.add_argument('--jobs', type=int, default=1, help='trainings at the same time')
    parser.add_argument('--gpus', type=int, default=1, help='GPUs (or processes) of each training')
    parser.add_argument('--data-root', type=Path, help="in place of the configs' data_root")
    parser.add_argument(
        '--pretrained',
        type=Path,
        metavar='DIR',
        help="start from DIR/hadaptive-s.pth and so on; backbones of timm load timm's weights",
    )
    parser.add_argument(
        '--configs', nargs='+', default=[''], help='only configs with one of these in their names'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], help='overrides for all configs, key=value'
    )
    args = parser.parse_args()
    for suite in args.suite:
        names, seeds = SUITES[suite]
        if SHAPES in names:
            make_shapes('data/shapes', 1000, 160)
        paths = [ROOT / name for name in names if any(part in name for part in args.configs)]
        if not paths:
            parser.error(f'--configs {" ".join(args.configs)}: the suite {suite} has none')
        options = {path: config_options(path, args, parser) for path in paths}
        runs = [Run(path, seed, options[path]) for seed in seeds for path in paths]
        results = train_all(runs, args.work_dir / suite, args.jobs, args.gpus)
        print(f'\n{suite}\n')
        print(tabulate_comparison(results, results[0]['config']), end='\n\n')
    if any(suite.startswith('coco') for suite in args.suite):
        print('Published by others, not measured here (COCO val2017):\n')
        print(markdown_table(('detector', 'input', 'mAP', 'source'), PUBLISHED))


def config_options(
    path: Path, args: argparse.Namespace, parser: argparse.ArgumentParser
) -> tuple[str, ...]:
    """Makes the overrides of a config that the command line asks for."""
    options = list(args.cfg_options)
    if args.data_root:
        options += data_root_options(path, str(args.data_root))
    if args.pretrained:
        checkpoint = args.pretrained / f'{path.stem.split("_")[1]}.pth'
        words = pretrained_options(Config.fromfile(path), str(checkpoint))
        if str(checkpoint) in ' '.join(words) and not checkpoint.is_file():
            parser.error(f'{path.stem} needs {checkpoint}: put a checkpoint there')
        options += words
    return tuple(options)


if __name__ == '__main__':
    main()
