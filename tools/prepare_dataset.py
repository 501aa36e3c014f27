"""Makes a folder of annotated images (Pascal VOC, YOLO or COCO) a data set with its config.

The folder is only read. Images stay where they are; what is written into --out is annotations in
COCO's format and a config that trains SSDLite on them, with Hadaptive-Net-S without products, from
weights that come with the package.
"""

import argparse
import shlex
from pathlib import Path

from mmengine.config import Config

from mmdet_hadaptive.preparation import FORMATS, PreparationError, prepare_dataset

_SHOWN = 5


def main() -> None:
    """Writes the data set and prints what was found in the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path, help='images and annotations, however deep')
    parser.add_argument('--out', type=Path, help='default: FOLDER_prepared, here')
    parser.add_argument('--format', choices=FORMATS, help='found by itself by default')
    parser.add_argument(
        '--classes', nargs='+', default=(), help='their order; of YOLO files also their names'
    )
    parser.add_argument(
        '--val-fraction',
        type=float,
        default=0.2,
        help='share of validation images, if the folder names none',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the random split')
    parser.add_argument(
        '--ignore-near-duplicates',
        action='store_true',
        help='divide images one by one, also those that look nearly the same',
    )
    args = parser.parse_args()
    out = args.out or Path(f'{args.folder.resolve().name}_prepared')
    try:
        result = prepare_dataset(
            args.folder,
            out,
            args.format,
            args.classes,
            args.val_fraction,
            args.seed,
            not args.ignore_near_duplicates,
        )
    except (PreparationError, OSError) as error:
        raise SystemExit(f'nothing is prepared: {error}') from error
    print(f'{args.folder}: {result.format}, classes {", ".join(result.classes)}')
    for finding in result.findings:
        print(f'  {finding.describe(_SHOWN)}')
    for split, (images, boxes) in result.counts.items():
        print(f'{split}: {images} images, {boxes} boxes')
    print(
        f'anchors: {result.anchors.share:.1%} of the training boxes overlap with one by an IoU of '
        f'0.5, with those of the template {result.default_anchors.share:.1%}'
    )
    epochs = Config.fromfile(result.config).train_cfg.max_epochs
    checkpoint = f'work_dirs/{result.config.stem}/epoch_{epochs}.pth'
    print(f'written: {out}\n')
    print(shlex.join(['python', 'tools/train.py', str(result.config)]))
    print(
        shlex.join(['python', 'tools/test.py', str(result.config), checkpoint])
        + ' --show-dir predictions'
    )


if __name__ == '__main__':
    main()
