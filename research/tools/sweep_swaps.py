"""Tries swap_backbone.py on one config of every folder of MMDetection, and writes the table."""

import argparse
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from mmdet_hadaptive.models import ARCHITECTURES
from research.benchmark.swap_sweep import sweep, write_table


def main() -> None:
    """Shows each outcome as it comes, and writes the page again after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--arch', choices=sorted(ARCHITECTURES), default='small')
    parser.add_argument(
        '--size', type=int, default=256, help='side length of the images, in pixels'
    )
    parser.add_argument('--timeout', type=float, default=300, help='seconds for each config')
    parser.add_argument('--out', type=Path, default=Path('research/reports/swap.md'))
    parser.add_argument(
        '--results',
        type=Path,
        default=Path('work_dirs/swap_sweep/results.jsonl'),
        help='finished folders; an interrupted sweep resumes from here',
    )
    args = parser.parse_args()
    where = f'mmdet {version("mmdet")}, torch {torch.__version__.split("+")[0]}'
    where += ', GPU' if torch.cuda.is_available() else ', CPU'
    command = shlex.join(['python', '-m', 'research.tools.sweep_swaps', *sys.argv[1:]])
    outcomes = []
    for outcome in sweep(args.results, args.arch, args.size, args.timeout):
        outcomes.append(outcome)
        print(f'{outcome.folder:24}{outcome.status:18}{outcome.remark}', flush=True)
        write_table(outcomes, args.out, args.arch, command, where)


if __name__ == '__main__':
    main()
