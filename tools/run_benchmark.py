"""Trains a suite of configs with several seeds and prints the table; goes on where it stopped."""

import argparse
from pathlib import Path

from mmdet_hadaptive.datasets import make_shapes
from mmdet_hadaptive.experiments import Run, comparison_table, train_all

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
SHAPES = 'ssdlite/ssdlite_hadaptive-s_shapes.py'
BCCD = 'ssdlite/ssdlite_hadaptive-s_bccd.py'
ABLATIONS = ('reversed-sign', 'fixed-selection', 'constant-temperature', 'bn-products')

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

# Per suite, tables of configs (the first is what the others are compared with) and seeds.
SUITES = {
    'ablation-shapes': (
        [SHAPES, *(f'ablation/ssdlite_hadaptive-s-{name}_shapes.py' for name in ABLATIONS)],
        (0, 1, 2),
    ),
    'ablation-bccd': (
        [BCCD, 'ablation/ssdlite_hadaptive-s-reversed-sign_bccd.py'],
        (0, 1),
    ),
    'bccd': ([BCCD, *(f'baselines/ssdlite_{name}_bccd.py' for name in BASELINES)], (0, 1)),
}


def main() -> None:
    """Runs the suites that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--suite', nargs='+', required=True, choices=SUITES)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/benchmark'))
    parser.add_argument('--jobs', type=int, default=1, help='trainings at the same time')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], help='overrides for all configs, key=value'
    )
    args = parser.parse_args()
    for suite in args.suite:
        names, seeds = SUITES[suite]
        if SHAPES in names:
            make_shapes('data/shapes', 1000, 160)
        runs = [Run(CONFIGS / name, seed) for seed in seeds for name in names]
        results = train_all(runs, args.work_dir / suite, args.jobs, args.cfg_options)
        table = comparison_table(results, runs[0].config.stem)
        print(f'\n{suite}\n\n{table}\n')


if __name__ == '__main__':
    main()
