"""Compares exported detectors by their mAP on the config's test data, their time and their size."""

import argparse
from pathlib import Path

from mmengine.config import Config, DictAction

try:
    from mmdet_hadaptive.export import benchmark_exported
except ImportError as error:
    raise SystemExit(f'error: {error}') from error


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='The config that the detectors were exported with.')
    parser.add_argument('files', type=Path, nargs='+', help='The files that tools/export.py wrote.')
    parser.add_argument(
        '--threads', type=int, default=1, help='The number of threads. The default is 1.'
    )
    parser.add_argument(
        '--rounds',
        type=int,
        default=50,
        help='How many times each detector is timed. The default is 50.',
    )
    parser.add_argument(
        '--cpu-time',
        action='store_true',
        help='Measure CPU time instead of wall-clock time. Use it on a busy machine, with one '
        'thread.',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/benchmark_exported'),
        help="The folder of MMEngine's logs. The default is work_dirs/benchmark_exported.",
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='Changes of the config, such as test_dataloader.batch_size=4.',
    )
    args = parser.parse_args()
    try:
        config = Config.fromfile(args.config)
        config.merge_from_dict(args.cfg_options)
        costs = benchmark_exported(
            config, args.files, args.work_dir, args.threads, args.rounds, args.cpu_time
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
