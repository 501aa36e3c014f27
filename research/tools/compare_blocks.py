"""Trains classifiers whose blocks cost the same on Tiny ImageNet; resumes where it stopped."""

import argparse
from pathlib import Path

import torch

from research.benchmark.block_study import StudyRun, tabulate_study, train_study
from research.benchmark.study_blocks import KINDS


def main() -> None:
    """Trains every kind with every seed, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('root', type=Path, help='tiny-imagenet-200, as it is distributed')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/block_study'))
    parser.add_argument('--kinds', nargs='+', default=list(KINDS), choices=KINDS)
    parser.add_argument('--classes', type=int, default=50)
    parser.add_argument('--epochs', type=int, default=10)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--threads', type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    runs = [
        StudyRun(kind, args.classes, args.epochs, seed)
        for seed in args.seeds
        for kind in args.kinds
    ]
    print(tabulate_study(train_study(runs, args.root, args.work_dir)))


if __name__ == '__main__':
    main()
