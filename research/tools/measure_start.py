"""Measures how long annotations of COCO's size take to load, and the memory of all processes.

--make repeats the images of a small data set until there are as many as in COCO (118,287 images,
860,001 boxes). CheckedCocoDataset is measured twice: the first processes parse the file, those of
the second turn find what they left. At last, how long an epoch takes to begin with workers that
start with it, and with ones that live on.
"""

import argparse
import os
import tempfile
from pathlib import Path
from statistics import median

from research.benchmark.start_up import (
    make_large_coco,
    measure_loading,
    measure_worker_start,
)
from research.markdown import markdown_table


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path, help='what --make makes, or COCO')
    parser.add_argument('--make', type=Path, metavar='SOURCE', help='a part of COCO')
    parser.add_argument('--images', type=int, default=118_287)
    parser.add_argument('--boxes', type=int, default=860_001)
    parser.add_argument('--mmdet-processes', type=int, default=1, help='each needs gigabytes')
    parser.add_argument('--processes', type=int, default=8)
    args = parser.parse_args()
    if args.make:
        make_large_coco(args.make, args.folder, args.images, args.boxes)
    options = dict(
        _scope_='mmdet',
        data_root=str(args.folder),
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=[],
    )
    rows = []
    checked = dict(type='CheckedCocoDataset', **options)
    with tempfile.TemporaryDirectory() as cache:
        os.environ['XDG_CACHE_HOME'] = cache
        for name, processes in (
            ('CocoDataset', args.mmdet_processes),
            ('CheckedCocoDataset', args.processes),
            ('CheckedCocoDataset', args.processes),
        ):
            found = measure_loading(dict(type=name, **options), processes)
            row = [name, processes, f'{max(found["seconds"]):.1f}', f'{sum(found["cpu"]):.1f}']
            rows.append([*row, f'{sum(found["peak"]):.0f}', f'{sum(found["pss"]):.0f}'])
            print(*rows[-1], flush=True)
        begun = measure_worker_start(checked, args.processes, rounds=10)
    headings = ['', 'processes', 'seconds', 'CPU seconds', 'peaks MiB', 'MiB at the end']
    print(markdown_table(headings, rows))
    for kind, seconds in begun.items():
        print(f'{args.processes} workers, {kind}: an epoch begins in {median(seconds):.2f} s')


if __name__ == '__main__':
    main()
