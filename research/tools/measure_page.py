"""Measures a page of tools/export.py in Chromium, and photographs it."""

import argparse
from pathlib import Path

import numpy as np

from research.benchmark.page import measure_page


def main() -> None:
    """Prints how long the page takes to start and for an image."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path, help='folder that tools/export.py --format web wrote')
    parser.add_argument('image', type=Path)
    parser.add_argument('--rounds', type=int, default=60, help='how often it is shown, default 60')
    parser.add_argument('--isolated', action='store_true', help='let the page have threads')
    parser.add_argument('--threshold', type=float, help='lowest score that is shown')
    parser.add_argument('--picture', type=Path, help='PNG file to write')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(1100, 900),
        metavar=('W', 'H'),
        help='size of the window in pixels',
    )
    parser.add_argument('--dark', action='store_true', help='in dark colours')
    costs = measure_page(**vars(parser.parse_args()))
    # Browsers compile what runs often again, better and later.
    later = costs.milliseconds[len(costs.milliseconds) // 2 :]
    low, median, high = np.percentile(later, [25, 50, 75])
    print(f'{costs.ready}; after {costs.start:.1f} s')
    print(f'first image {costs.milliseconds[0]:.0f} ms')
    print(f'later {median:.0f} ms ({low:.0f} to {high:.0f})')


if __name__ == '__main__':
    main()
