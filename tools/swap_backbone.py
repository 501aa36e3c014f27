"""Puts Hadaptive-Net into a detector of MMDetection: writes a thin config, and proves it.

The MACs of two-stage detectors contain what their heads do with the proposals of random weights,
whose number differs.
"""

import argparse
from pathlib import Path

from mmengine.runner import set_random_seed

from mmdet_hadaptive.backbones import ARCHITECTURES
from mmdet_hadaptive.swap import SwapError, swap_backbone


def main() -> None:
    """Writes the config and prints what the exchange costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='a config file, or mmdet::folder/name.py')
    parser.add_argument('--arch', choices=sorted(ARCHITECTURES), default='small')
    parser.add_argument('--out', type=Path, help='default: SOURCE_hadaptive-ARCH.py, here')
    parser.add_argument(
        '--size', type=int, default=256, help='edge of the random images, a multiple of 32'
    )
    args = parser.parse_args()
    name = args.source.split('::')[-1].split('/')[-1].removesuffix('.py')
    out = args.out or Path(f'{name}_hadaptive-{args.arch}.py')
    if out.exists():
        parser.error(f'{out} exists: remove it, or name another file with --out')
    # The same command prints the same figures.
    set_random_seed(0)
    try:
        before, proof = swap_backbone(args.source, out, args.arch, args.size)
    except SwapError as error:
        raise SystemExit(f'nothing is written, the backbone cannot be exchanged: {error}') from None
    except ValueError as error:
        raise SystemExit(f'nothing is written: {error}') from error
    after = proof.costs
    print(f'{"":24}{"before":>12}{"after":>12}')
    for label, key, unit in (
        ('parameters M', 'parameters', 1e6),
        ('MACs G', 'macs', 1e9),
        ('backbone parameters M', 'backbone_parameters', 1e6),
        ('backbone MACs G', 'backbone_macs', 1e9),
    ):
        old = '-' if isinstance(before, str) else f'{getattr(before, key) / unit:.3f}'
        print(f'{label:24}{old:>12}{getattr(after, key) / unit:>12.3f}')
    if isinstance(before, str):
        print(f'before: the source does not run here ({before})')
    print(
        f'one image of {args.size} x {args.size}; loss {proof.loss:.3f}, largest gradient of the '
        f'stem {proof.gradient:.2e}, {proof.detections} detections in a random image'
    )
    print(f'written: {out}')


if __name__ == '__main__':
    main()
