"""Trains configs from the weights that they name and from scratch, of several lengths.

Prints mean and spread over the seeds. Resumes where it stopped.
"""

import argparse
from pathlib import Path

from mmdet_hadaptive.benchmark.accuracy import Run, tabulate_comparison, train_all
from mmdet_hadaptive.benchmark.prepared_data import write_starts


def main() -> None:
    """Writes the configs, trains them and prints a table for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', type=Path, nargs='+', help='each starts from weights')
    parser.add_argument('--epochs', type=int, nargs='+', default=[4, 7, 14])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/starts'))
    parser.add_argument('--jobs', type=int, default=1, help='trainings at the same time')
    args = parser.parse_args()
    folder = args.work_dir / 'configs'
    groups = [
        [file for epochs in sorted(args.epochs) for file in write_starts(config, epochs, folder)]
        for config in args.configs
    ]
    runs = [Run(file, seed) for seed in args.seeds for files in groups for file in files]
    results = train_all(runs, args.work_dir, args.jobs)
    for files in groups:
        names = [file.stem for file in files]
        same_data = [result for result in results if result['config'] in names]
        # The longest training from scratch is the last but one.
        print(tabulate_comparison(same_data, names[-2]), end='\n\n')


if __name__ == '__main__':
    main()
