"""Puts Hadaptive-Net into a detector of MMDetection, tests it, and writes a config.

The MACs of two-stage detectors depend on the number of proposals, which differs for random
weights.
"""

import argparse
from pathlib import Path

from mmengine.runner import set_random_seed

from mmdet_hadaptive.models import ARCHITECTURES
from mmdet_hadaptive.swap import swap_backbone
from mmdet_hadaptive.utils.installation import silence_pkg_resources


def main() -> None:
    """Writes the config and prints what the swap costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'source',
        help='config of the detector: a file, or one of MMDetection as mmdet::FOLDER/NAME.py',
    )
    parser.add_argument(
        '--arch',
        choices=sorted(ARCHITECTURES),
        default='small',
        help='architecture of the new backbone (default: small)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        help='config to write; it must not exist (default: SOURCE_hadaptive-ARCH.py in the current '
        'folder)',
    )
    parser.add_argument(
        '--size',
        type=int,
        default=320,
        help='side length in pixels of the random images on which the detector is tried, a '
        'multiple of 32 (default: 320)',
    )
    args = parser.parse_args()
    silence_pkg_resources()
    name = args.source.split('::')[-1].split('/')[-1].removesuffix('.py')
    out = args.out or Path(f'{name}_hadaptive-{args.arch}.py')
    # A fixed seed, so that the same command prints the same figures.
    set_random_seed(0)
    try:
        before, result = swap_backbone(args.source, out, args.arch, args.size)
    except (ValueError, OSError) as error:
        raise SystemExit(f'nothing is written: {error}') from error
    print(f'{"":24}{"before":>12}{"after":>12}')
    for label, part, key, unit in (
        ('parameters M', 'detector', 'parameters', 1e6),
        ('MACs G', 'detector', 'macs', 1e9),
        ('backbone parameters M', 'backbone', 'parameters', 1e6),
        ('backbone MACs G', 'backbone', 'macs', 1e9),
    ):
        old = '-' if isinstance(before, str) else f'{getattr(before[part], key) / unit:.3f}'
        print(f'{label:24}{old:>12}{getattr(result.costs[part], key) / unit:>12.3f}')
    if isinstance(before, str):
        print(f'before: the source does not run here ({before})')
    print(
        f'one image of {args.size} x {args.size}; loss {result.loss:.3f}, largest gradient of the '
        f'stem {result.gradient:.2e}, {result.detections} detections in a random image'
    )
    print(f'written: {out}')


if __name__ == '__main__':
    main()
