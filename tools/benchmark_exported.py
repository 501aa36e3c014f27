"""Compares exported detectors: mAP on the config's test data, time for an image, size."""

import argparse
from pathlib import Path

import torch
from mmengine.config import Config, DictAction

from mmdet_hadaptive.export import benchmark_exported


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('files', type=Path, nargs='+', help='files that tools/export.py wrote')
    parser.add_argument('--threads', type=int, default=1, help='default 1')
    parser.add_argument('--rounds', type=int, default=50, help='timed images of each, default 50')
    parser.add_argument(
        '--processor-time',
        action='store_true',
        help="instead of the clock's: for one thread on a busy machine",
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/benchmark_exported'))
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args()
    config = Config.fromfile(args.config)
    config.merge_from_dict(args.cfg_options)
    torch.set_num_threads(args.threads)
    try:
        costs = benchmark_exported(
            config, args.files, args.work_dir, args.threads, args.rounds, args.processor_time
        )
    except (ValueError, OSError) as error:
        raise SystemExit(f'error: {error}') from error
    print('| file | format | mAP | ms | ratio to the first (quartiles) | MB |')
    print('|---|---|---|---|---|---|')
    for row in costs:
        low, median, high = row.ratio
        print(
            f'| {row.file.name} | {row.format} | {row.map:.3f} | {row.milliseconds:.1f} | '
            f'{median:.2f} ({low:.2f} to {high:.2f}) | {row.megabytes:.2f} |'
        )


if __name__ == '__main__':
    main()
