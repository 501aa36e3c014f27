"""Draws the losses of a run over the crops it has seen."""

import argparse
import json
from pathlib import Path

from matplotlib.figure import Figure

_TERMS = {
    'kl': 'divergence of the classes',
    'map16': 'map of stride 16',
    'map32': 'map of stride 32',
}


def main() -> None:
    """Reads the progress and writes a picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('progress', type=Path, help='progress.jsonl')
    parser.add_argument('out', type=Path, help='the picture')
    args = parser.parse_args()
    lines = [json.loads(line) for line in args.progress.read_text().splitlines()]
    figure = Figure(figsize=(4 * len(_TERMS), 3.2), layout='constrained')
    for axes, (term, title) in zip(figure.subplots(1, len(_TERMS)), _TERMS.items(), strict=True):
        for key in sorted({key for line in lines for key in line if key.endswith(f'/{term}')}):
            points = [(line['views'] / 1000, line[key]) for line in lines if key in line]
            axes.plot(*zip(*points, strict=True), label=key.partition('/')[0])
        axes.set(title=title, xlabel='thousand crops')
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(args.out, dpi=90)


if __name__ == '__main__':
    main()
