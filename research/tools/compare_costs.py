"""Compares parameters, multiply-accumulates and latency of detectors, all measured in turn.

What is counted and timed is the network, without post-processing, with random weights; for the
times all are fused alike.
"""

import argparse
import csv
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import mmdet_hadaptive  # noqa: F401
from mmdet_hadaptive.export import FORMATS, ExportError
from research.benchmark.cost_comparison import (
    Entry,
    compare_entries,
    draw_accuracy,
    load_entry,
    measure_times,
)
from research.benchmark.format_times import (
    compare_formats,
    export_entries,
    measure_formats,
)
from research.markdown import markdown_table


def main() -> None:
    """Prints the table, and writes it where the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='+', type=Path, help='config files')
    parser.add_argument('--reference', help='name of the config to compare with; the first')
    parser.add_argument('--rounds', type=int, default=20, help='0 measures no times')
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--device', default='cpu')
    parser.add_argument(
        '--formats', nargs='+', choices=FORMATS, help='time in their runtimes, instead of PyTorch'
    )
    parser.add_argument(
        '--exported',
        type=Path,
        metavar='DIR',
        help='keeps what --formats exports, and takes what is there, however old',
    )
    parser.add_argument(
        '--cpu-time',
        action='store_true',
        help="of --formats, not the clock's: for one thread on a busy machine",
    )
    parser.add_argument(
        '--prune',
        nargs='+',
        default=[],
        metavar='NAME',
        help='configs that are compared without their products as well',
    )
    parser.add_argument('--markdown', type=Path, metavar='FILE')
    parser.add_argument('--csv', type=Path, metavar='FILE')
    parser.add_argument(
        '--picture', type=Path, metavar='FILE', help='mAP over time, or MACs; needs results'
    )
    parser.add_argument('--results', type=Path, help='results.jsonl of run_benchmark.py')
    args = parser.parse_args()
    if bool(args.picture) != bool(args.results):
        parser.error('--picture and --results go together')
    if args.rounds == 1 or args.rounds < 0:
        parser.error(f'--rounds must be 0 or at least 2, got {args.rounds}')
    if args.formats and not args.rounds and not args.exported:
        parser.error('--rounds 0 only exports what --formats names: say where, with --exported')
    stems = [path.stem for path in args.configs]
    reference = args.reference or stems[0]
    if reference not in stems:
        parser.error(f'--reference must be one of {", ".join(stems)}, got {reference}')

    for name in args.prune:
        if name not in stems:
            parser.error(f'--prune must name configs of {", ".join(stems)}, got {name}')

    entries = []
    for path in args.configs:
        for pruned in (False, True)[: 1 + (path.stem in args.prune)]:
            entry = load_entry(path, pruned)
            entry.model.to(args.device)
            entries.append(entry)
    if args.formats:
        headings, rows = compare_runtimes(entries, reference, args)
    else:
        if args.rounds:
            measure_times(entries, args.batch, args.threads, args.rounds)
        headings, rows = compare_entries(entries, reference)
    table = markdown_table(headings, rows)
    print(table)
    if args.rounds:
        print(
            f'\nms per batch of {args.batch}, medians of {args.rounds} rounds in turn, '
            f'{args.threads} threads, {args.device}, torch {torch.__version__}; ratios to '
            f'{reference}: medians and quartiles of the ratios within a round'
        )
    if args.markdown:
        args.markdown.write_text(f'{table}\n')
    if args.csv:
        with args.csv.open('w', newline='') as file:
            writer = csv.writer(file)
            writer.writerow(headings)
            writer.writerows(rows)
    if args.picture:
        results = [json.loads(line) for line in args.results.read_text().splitlines()]
        draw_accuracy(entries, results, args.picture)


def compare_runtimes(
    entries: list[Entry], reference: str, args: argparse.Namespace
) -> tuple[list[str], list[list[str]]]:
    """Exports the detectors, and times them in the runtimes of their formats."""
    with TemporaryDirectory() as folder:
        try:
            files = export_entries(entries, args.formats, args.exported or Path(folder))
            if not args.rounds:
                raise SystemExit(f'exported into {args.exported}')
            times, failures = measure_formats(
                files, entries, args.threads, args.rounds, args.cpu_time
            )
        except (ExportError, OSError) as error:
            raise SystemExit(f'error: {error}') from error
    for failure in failures:
        print(f'left out: {failure}\n')
    return compare_formats(times, reference)


if __name__ == '__main__':
    main()
