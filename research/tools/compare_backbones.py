"""Trains SSDLite with several backbones from scratch on prepared data sets, by the same recipe.

The learning rate of each is the best of several on the first data set with the first seed. Prints
what was tried, mean and spread over the seeds, and a paired test. Resumes where it stopped. With
--picture it times the detectors, too: on a machine that does nothing else.
"""

import argparse
from pathlib import Path
from statistics import mean

from mmdet_hadaptive.utils.metrics import MAP
from research.benchmark.accuracy import Run, train_all
from research.benchmark.cost_comparison import draw_accuracy, load_entry, measure_times
from research.benchmark.prepared_data import (
    data_name,
    detector_name,
    tabulate_detectors,
    write_detector,
)
from research.markdown import markdown_table

ROOT = Path(__file__).resolve().parents[2]
# The first is what the others are compared with.
DETECTORS = [
    ROOT / f'{name}_8xb24-600e_coco.py'
    for name in (
        'configs/ssdlite/ssdlite_hadaptive-s-ir',
        'configs/ssdlite/ssdlite_hadaptive-s',
        'research/configs/baselines/ssdlite_mobilenetv3-large',
        'research/configs/baselines/ssdlite_mobilenetv4-conv-small',
        'research/configs/baselines/ssdlite_ghostnet',
    )
]


def main() -> None:
    """Chooses the learning rates, trains, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('data', type=Path, nargs='+', help='configs that prepare_dataset.py wrote')
    parser.add_argument('--detectors', type=Path, nargs='+', default=DETECTORS)
    parser.add_argument('--epochs', type=int, default=14)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument(
        '--learning-rates', type=float, nargs='+', default=[1e-3, 2e-3, 4e-3], metavar='LR'
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/backbones'))
    parser.add_argument('--jobs', type=int, default=1, help='trainings at the same time')
    parser.add_argument(
        '--picture', type=Path, metavar='FILE', help='mean mAP over the time of an image'
    )
    args = parser.parse_args()
    folder = args.work_dir / 'configs'

    def train(wanted: list[tuple[Path, Path, float, int]]) -> dict[tuple, dict]:
        runs = [
            Run(write_detector(data, detector, args.epochs, rate, folder), seed)
            for data, detector, rate, seed in wanted
        ]
        return dict(zip(wanted, train_all(runs, args.work_dir, args.jobs), strict=True))

    first, seed, rates = args.data[0], args.seeds[0], args.learning_rates
    tried = train([(first, d, rate, seed) for d in args.detectors for rate in rates])
    scores = {d: [tried[first, d, rate, seed][MAP] for rate in rates] for d in args.detectors}
    rows = [(detector_name(d), *(f'{s:.3f}' for s in values)) for d, values in scores.items()]
    print(markdown_table((data_name(first), *(f'{rate:g}' for rate in rates)), rows), end='\n\n')

    best = {d: max(zip(values, rates, strict=True))[1] for d, values in scores.items()}
    results = train(
        [(x, d, best[d], s) for s in args.seeds for x in args.data for d in args.detectors]
    )
    by_backbone = {
        detector_name(d): {
            data_name(x): [results[x, d, best[d], s] for s in args.seeds] for x in args.data
        }
        for d in args.detectors
    }
    print(tabulate_detectors(by_backbone, detector_name(args.detectors[0])))
    if args.picture:
        entries = [load_entry(detector) for detector in args.detectors]
        measure_times(entries, batch=1, threads=2, rounds=30)
        means = [
            {'config': d.stem, MAP: mean(results[x, d, best[d], s][MAP] for x in args.data)}
            for d in args.detectors
            for s in args.seeds
        ]
        draw_accuracy(entries, means, args.picture)


if __name__ == '__main__':
    main()
