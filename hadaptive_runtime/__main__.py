"""Detects objects in images, videos and the images of cameras, with an exported detector."""

import argparse
from pathlib import Path

import cv2

from .drawing import drawable_names
from .errors import ExportError
from .loading import load_exported
from .predict import PICTURES, check_request, predict, print_note
from .predictions import TABLES
from .sources import describe, find_sources


def _run(args: argparse.Namespace) -> None:
    sources = find_sources(args.source, args.out, args.recursive)
    save = tuple(dict.fromkeys(args.save))
    # Errors are raised before the detector is loaded.
    check_request(sources, args.out, save)
    detector = load_exported(args.model)
    for note in sources.notes:
        print_note(note)
    if args.threshold < detector.score_threshold:
        print_note(
            f'--threshold is {args.threshold:g}, but the file only gives objects with scores above '
            f'{detector.score_threshold:g}: export it again with --cfg-options '
            f'model.test_cfg.score_thr={args.threshold:g}'
        )
    names = drawable_names(detector.classes)
    drawn = [
        f'{name} as {shown}'
        for name, shown in zip(detector.classes, names, strict=True)
        if name != shown
    ]
    if drawn and PICTURES in save:
        print_note(
            f'OpenCV {cv2.__version__} draws only ASCII letters, so these classes have other names '
            f'in pictures, {describe(drawn)}; OpenCV 5 draws them'
        )
    predict(detector, sources, args.out, save, args.threshold, args.tiles, args.show)


def score(text: str) -> float:
    """Reads a score. The name of this function appears in argparse's error."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'must be in 0..1, 0.3 for 30 %, got {text}')
    return value


def pixels(text: str) -> int:
    """Reads the side of a tile. The name of this function appears in argparse's error."""
    value = int(text)
    if value < 32:
        raise argparse.ArgumentTypeError(f'must be at least 32 pixels, got {text}')
    return value


class _Parser(argparse.ArgumentParser):
    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        # Editors leave spaces and empty lines, and may begin the file with a byte order mark.
        argument = arg_line.removeprefix('\ufeff').strip()
        return [argument] if argument else []


def main() -> None:
    """Runs the command line."""
    parser = _Parser(description=__doc__, fromfile_prefix_chars='@')
    parser.add_argument('model', type=Path, help='The file that tools/export.py wrote.')
    parser.add_argument(
        'source',
        nargs='+',
        help='What to predict: images, folders, videos, the number of a camera such as 0, a device '
        'such as /dev/video0, or an address such as rtsp://HOST/PATH. Ctrl+C ends a camera or '
        'stream and keeps the video. SIGTERM does so, too, and ends the program. @FILE reads more '
        'arguments from a file, one in a line.',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('outputs'),
        help='The folder that results are written to. The default is outputs.',
    )
    parser.add_argument(
        '--save',
        nargs='+',
        choices=(PICTURES, *TABLES),
        default=[PICTURES],
        help='What is written: pictures with boxes (the default), coco (a COCO file for labelling '
        "tools: coco.json), coco-results (COCO's results format: coco_results.json), yolo (text "
        'files in labels/, and data.yaml), csv (detections.csv).',
    )
    parser.add_argument(
        '--threshold',
        type=score,
        default=0.3,
        help='The lowest score of the objects that are drawn and written. The default is 0.3.',
    )
    parser.add_argument(
        '--recursive', action='store_true', help='Also predict the folders inside a folder.'
    )
    parser.add_argument(
        '--tiles',
        type=pixels,
        metavar='PIXELS',
        help='Detect in overlapping tiles of this width and height. Use it for small objects in '
        'large images. It needs supervision (pip install supervision).',
    )
    parser.add_argument(
        '--show',
        action='store_true',
        help='Show videos and cameras in a window while they are predicted. The key q ends a video '
        'and keeps what was written.',
    )
    args = parser.parse_args()
    try:
        _run(args)
    except (ExportError, OSError) as error:
        raise SystemExit(f'error: {error}') from error
    except KeyboardInterrupt:
        raise SystemExit('stopped') from None


if __name__ == '__main__':
    main()
