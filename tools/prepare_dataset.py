"""Makes a data set and its config from a folder of annotated images (Pascal VOC, YOLO or COCO).

The folder is not changed, and images are not copied. The tool writes annotations in COCO's format
and a config that trains SSDLite on them to --out. The default network is Hadaptive-Net-S-IR with
weights that come with the package. The length of the training follows from the number of images.
"""

import argparse
import shlex
from pathlib import Path

from mmengine.config import Config

from hadaptive_runtime.errors import describe_error
from mmdet_hadaptive.models import ARCHITECTURES
from mmdet_hadaptive.preparation import FORMATS, PreparationError, Recipe, prepare_dataset
from mmdet_hadaptive.preparation.timing import measure_iteration
from mmdet_hadaptive.pretraining import distilled_weights
from mmdet_hadaptive.utils.installation import silence_pkg_resources

_SHOWN = 5


def main() -> None:
    """Writes the data set and prints the findings in the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Recipe()
    parser.add_argument(
        'folder', type=Path, help='The folder with the images and annotations, however deep.'
    )
    parser.add_argument(
        '--out', type=Path, help='The folder that is written (default: FOLDER_prepared, here).'
    )
    parser.add_argument(
        '--format',
        choices=FORMATS,
        help='The format of the annotations. By default the tool recognises it.',
    )
    parser.add_argument(
        '--classes',
        nargs='+',
        default=(),
        help='The names of the classes in the order of their labels. In a YOLO folder they name '
        'the numbers 0, 1, ... of the text files. YOLO folders without a data.yaml need them.',
    )
    parser.add_argument(
        '--val-fraction',
        type=float,
        default=0.2,
        help='The share of validation images, where the folder names none (default: 0.2).',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='The seed of the random split (default: 0).'
    )
    parser.add_argument(
        '--ignore-near-duplicates',
        action='store_true',
        help='Divide the images one by one, also those that look nearly the same.',
    )
    parser.add_argument(
        '--arch',
        choices=ARCHITECTURES,
        default=default.arch,
        help=f'The network that is trained (default: {default.arch}). '
        f'{" and ".join(filter(distilled_weights, ARCHITECTURES))} begin with trained weights; the '
        'others need more images and epochs.',
    )
    parser.add_argument(
        '--size',
        type=int,
        default=default.input_size,
        help='The side length of the square input in pixels, a multiple of 64 (default: '
        f'{default.input_size}). Small objects need a larger input, which takes more time.',
    )
    parser.add_argument(
        '--epochs',
        type=int,
        help='The number of epochs. By default it follows from the number of images.',
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        default=default.batch_size,
        help=f'The number of images in a batch (default: {default.batch_size}). The learning rate '
        'follows it.',
    )
    args = parser.parse_args()
    silence_pkg_resources()
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
            Recipe(args.arch, args.size, args.epochs, args.batch_size),
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
    print(f'written: {out}\nmeasuring the time of an iteration ...', flush=True)
    schedule = result.schedule
    try:
        seconds = measure_iteration(Config.fromfile(result.config))
        duration = (
            f'{schedule.iterations} iterations of {seconds:.2f} s take '
            f'{_describe_time(schedule.iterations * seconds)} here, validations not included'
        )
    # The data set is written. The commands below are useful even if the measurement fails.
    except Exception as error:
        duration = (
            f'{schedule.iterations} iterations, whose time cannot be measured here '
            f'({describe_error(error)})'
        )
    repeated = f', each image {schedule.repeats} times' if schedule.repeats > 1 else ''
    print(
        f'training: {schedule.epochs} epochs of {schedule.epoch_length} iterations{repeated}; '
        f'{duration}\n'
    )
    checkpoint = f'work_dirs/{result.config.stem}/epoch_{schedule.epochs}.pth'
    print(shlex.join(['python', 'tools/train.py', str(result.config)]))
    print(
        shlex.join(['python', 'tools/test.py', str(result.config), checkpoint])
        + ' --show-dir predictions'
    )


def _describe_time(seconds: float) -> str:
    return f'{seconds / 3600:.1f} h' if seconds > 5400 else f'{seconds / 60:.0f} min'


if __name__ == '__main__':
    main()
