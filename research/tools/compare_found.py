"""Trains what searches found, what they started from, and random networks of the same cost.

Prints mean and spread over the seeds. Resumes where it stopped.
"""

import argparse
from pathlib import Path

from research.benchmark.accuracy import Run, tabulate_comparison, train_all
from research.benchmark.compared_networks import (
    write_found_architectures,
    write_random_architectures,
)
from research.search.result import find_base


def main() -> None:
    """Writes the configs, trains them and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('search', type=Path, help='config of a search: all train as it says')
    parser.add_argument(
        'found', type=Path, nargs='*', help='work directories of searches that have ended'
    )
    parser.add_argument('--random', type=int, default=3, metavar='N', help='networks to draw')
    parser.add_argument(
        '--seeds', type=int, nargs='+', default=[0, 1], help='seeds of the trainings'
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/found'))
    parser.add_argument('--jobs', type=int, default=1, help='trainings at the same time')
    args = parser.parse_args()
    base, folder = Path(find_base(args.search)), args.work_dir / 'configs'
    configs = [
        base,
        *write_random_architectures(args.search, args.random, folder),
        *write_found_architectures(args.search, args.found, folder),
    ]
    runs = [Run(config, seed) for seed in args.seeds for config in configs]
    print(tabulate_comparison(train_all(runs, args.work_dir, args.jobs), base.stem))


if __name__ == '__main__':
    main()
