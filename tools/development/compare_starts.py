"""Trains configs from the weights that they name and from scratch, of several lengths.

Prints mean and spread over the seeds; --out draws them. Resumes where it stopped.
"""

import argparse
from pathlib import Path

from mmdet_hadaptive.benchmark.accuracy import Run, tabulate_comparison, train_all
from mmdet_hadaptive.benchmark.starts import draw_starts, write_starts


def main() -> None:
    """Writes the configs, trains them and prints a table for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', type=Path, nargs='+', help='each starts from weights')
    parser.add_argument('--epochs', type=int, nargs='+', default=[4, 7, 14])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/starts'))
    parser.add_argument('--jobs', type=int, default=1, help='trainings at the same time')
    parser.add_argument('--out', type=Path, help='picture of mAP over epochs')
    args = parser.parse_args()
    written = {
        config: [write_starts(config, epochs, args.work_dir / 'configs') for epochs in args.epochs]
        for config in args.configs
    }
    results = {}
    for seed in args.seeds:
        for config, pairs in written.items():
            runs = [Run(file, seed) for pair in pairs for file in pair]
            results.setdefault(config, []).extend(train_all(runs, args.work_dir, args.jobs))
    for config, pairs in written.items():
        longest_from_scratch = pairs[args.epochs.index(max(args.epochs))][0]
        print(tabulate_comparison(results[config], longest_from_scratch.stem), end='\n\n')
    if args.out:
        draw_starts([result for group in results.values() for result in group], args.out)


if __name__ == '__main__':
    main()
