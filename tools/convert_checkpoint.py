"""Converts a checkpoint of the authors' release into one for this package."""

import argparse
import io
from pathlib import Path

import torch

from mmdet_hadaptive.pretraining import convert_released_checkpoint
from mmdet_hadaptive.utils.files import write_whole


def main() -> None:
    """Writes the converted checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', type=Path, help="checkpoint of the authors' release")
    parser.add_argument('out', type=Path, help='checkpoint to write')
    parser.add_argument(
        '--with-head',
        action='store_true',
        help="convert the head of the classifier, too, in the form of MMPretrain's classifiers",
    )
    args = parser.parse_args()
    if not args.source.is_file():
        parser.error(f'{args.source} does not exist')
    if args.out.exists():
        parser.error(f'{args.out} exists already: name another file, or remove it')
    buffer = io.BytesIO()
    try:
        checkpoint = convert_released_checkpoint(args.source, args.with_head)
        torch.save(checkpoint, buffer)
        write_whole(buffer.getvalue(), args.out)
    except (ValueError, OSError) as error:
        raise SystemExit(f'error: {error}') from None
    arch = checkpoint['meta']['arch']
    prefix = ", prefix='backbone.'" if args.with_head else ''
    print(
        f'{args.out}: the {arch} network, {len(checkpoint["state_dict"])} tensors; use it with\n'
        f"  backbone=dict(type='HadaptiveNet', arch='{arch}', "
        f"init_cfg=dict(type='Pretrained', checkpoint='{args.out}'{prefix}))"
    )


if __name__ == '__main__':
    main()
