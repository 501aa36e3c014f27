"""Detects objects in images, videos and the images of cameras, with an exported detector."""

import argparse
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np

from .detections import Detections
from .detector import Detector
from .drawing import draw, drawable_names
from .errors import ExportError
from .files import LONGEST_NAME, write_whole
from .images import WRITTEN_SUFFIXES, describe_refusal, has_several_images, read_image, write_image
from .loading import load_exported
from .predictions import OF_IMAGES, TABLES, Prediction, make_tables, yolo_name
from .sources import Sources, describe, find_sources
from .tiles import detect_in_tiles
from .video import VideoSource, VideoWriter, hold_interrupts, name_recording

PICTURES = 'pictures'
_BAR = 30
# A limit, because a camera may run for months.
_TIMED = 10_000


class Predictor:
    """Detects objects, and shows the progress on a terminal.

    Args:
        detector: The detector.
        threshold: The lowest score of what is drawn and written.
        total: The number of images. None if it is not known.
        tile: The side of the tiles that an image is cut into, in pixels. None for whole images.
        keep: Whether predictions are kept, as tables need them.

    Attributes:
        count: The number of images so far.
        predictions: The predictions of each image, if they are kept.
        seconds: The time of preprocessing and detection for each of the last images.
    """

    def __init__(
        self,
        detector: Detector,
        threshold: float,
        total: int | None,
        tile: int | None = None,
        keep: bool = True,
    ) -> None:
        self.threshold = threshold
        self.total = total
        self.keep = keep
        self.count = 0
        self.predictions: list[Prediction] = []
        self.seconds: deque[float] = deque(maxlen=_TIMED)
        self.start = time.perf_counter()
        self._detect: Callable[[np.ndarray], Detections] = (
            detect_in_tiles(detector, tile) if tile else detector
        )
        self._names = drawable_names(detector.classes)

    def __call__(
        self, image: np.ndarray, name: str, frame: int | None = None, seconds: float | None = None
    ) -> np.ndarray:
        """Detects in an image.

        Args:
            image: (H, W, 3), uint8, BGR.
            name: The name of the image or its video in the results.
            frame: The number of a video's frame.
            seconds: The time of a video's frame.

        Returns:
            A copy of the image with the detected objects.
        """
        start = time.perf_counter()
        found = self._detect(image).above(self.threshold)
        self.seconds.append(time.perf_counter() - start)
        self.count += 1
        if self.keep:
            height, width = image.shape[:2]
            self.predictions.append(Prediction(name, width, height, found, frame, seconds))
        if sys.stderr.isatty():
            print(f'\r{self.progress()} ', end='', file=sys.stderr, flush=True)
        return draw(image, found, self._names)

    def progress(self) -> str:
        """Returns a bar, the number of images, and images per second with reading and drawing."""
        rate = f'{self.count / (time.perf_counter() - self.start):.1f} per second'
        if self.total is None:
            return f'{self.count}, {rate}'
        filled = min(_BAR * self.count // self.total, _BAR)
        return f'[{"#" * filled}{"." * (_BAR - filled)}] {self.count}/{self.total}, {rate}'

    def summary(self, kind: str, written: str) -> str:
        """Returns the number of images, the median latency and images per second in one line."""
        rate = self.count / (time.perf_counter() - self.start)
        if sys.stderr.isatty():
            print(file=sys.stderr)
        return (
            f'{kind}: {self.count}, median latency: {1000 * np.median(self.seconds):.1f} ms, '
            f'{rate:.1f} per second, written: {written}'
        )


def predict(
    detector: Detector,
    sources: Sources,
    out: Path,
    save: Sequence[str] = (PICTURES,),
    threshold: float = 0.3,
    tile: int | None = None,
    show: bool = False,
) -> None:
    """Detects in all sources, writes the results, and prints the time of an image.

    Args:
        detector: The detector.
        sources: The result of :func:`find_sources`.
        out: The folder of the results.
        save: The kinds of results: 'pictures' (also videos), and any of
            :data:`~hadaptive_runtime.predictions.TABLES`.
        threshold: The lowest score of what is drawn and written.
        tile: The side of the tiles that an image is cut into, in pixels. None for whole images.
        show: Whether videos are shown in a window.

    Raises:
        ExportError: If something cannot be written, or if some images or videos cannot be read. All
            others are predicted and written first.
    """
    targets = _choose_targets(sources, out)
    _check_formats(sources, save)
    tables = [name for name in save if name in TABLES]
    predictions, refused, problems = [], {}, []
    if sources.images:
        predictor = Predictor(detector, threshold, len(sources.images), tile, bool(tables))
        refused = _predict_images(sources.images, targets, predictor, PICTURES in save)
        predictions += predictor.predictions
        if predictor.count:
            print(predictor.summary('images', str(out)))
    for source, name in sources.videos.items():
        try:
            video = VideoSource(source)
        except ExportError as error:
            problems.append(str(error))
            continue
        predictor = Predictor(detector, threshold, video.num_frames, tile, bool(tables))
        target = targets[source]
        if video.is_live:
            target = name_recording(target)
            name = target.name
        if PICTURES not in save:
            target = None
        try:
            is_terminated = _predict_video(video, name, target, predictor, show)
        except ExportError as error:
            # All others are predicted, and the tables are written.
            problems.append(str(error))
            continue
        finally:
            predictions += predictor.predictions
        print(predictor.summary('frames', str(target or out)))
        if video.note:
            _print_note(video.note)
        if is_terminated:
            break
    if predictions:
        for name, content in make_tables(tables, predictions, detector.classes).items():
            file = out / name
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, content)
    if refused:
        count = sum(map(len, refused.values()))
        reasons = '; '.join(f'{describe(names)}: {reason}' for reason, names in refused.items())
        problems.append(f'{count} of {len(sources.images)} images have failed: {reasons}')
    if problems:
        raise ExportError('; '.join(problems))


def _predict_images(
    images: Mapping[Path, str], targets: Mapping[Path, Path], predictor: Predictor, draws: bool
) -> dict[str, list[str]]:
    """Predicts images. Returns those that cannot be predicted or written, by their reason."""
    refused: dict[str, list[str]] = {}
    paged = []
    for file, name in images.items():
        try:
            image = read_image(file)
        except OSError as error:
            refused.setdefault(f'not readable ({error.strerror})', []).append(name)
            continue
        if image is None:
            refused.setdefault(describe_refusal(file), []).append(name)
            continue
        if has_several_images(file):
            paged.append(name)
        picture = predictor(image, name)
        if draws:
            targets[file].parent.mkdir(parents=True, exist_ok=True)
            try:
                write_image(targets[file], picture)
            except ExportError as error:
                refused.setdefault(str(error).removeprefix(f'{targets[file]} '), []).append(name)
    if paged:
        _print_note(f'of files with several images the first is predicted, {describe(paged)}')
    return refused


def _predict_video(
    video: VideoSource, name: str, target: Path | None, predictor: Predictor, show: bool
) -> bool:
    """Predicts a video until it ends or is stopped. Returns whether SIGTERM stopped it."""
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
    writing = VideoWriter(target, video.rate, not video.is_live) if target else nullcontext()
    holding = hold_interrupts() if video.is_live else nullcontext(())
    with holding as interrupts, writing as writer:
        for number, (frame, seconds) in enumerate(video):
            picture = predictor(frame, name, number, seconds)
            if writer is not None:
                writer.write(picture, seconds)
            if interrupts or (show and not _show(picture)):
                break
        if writer is not None:
            writer.finish()
    return signal.SIGTERM in interrupts


def _show(picture: np.ndarray) -> bool:
    """Shows a picture in a window. Returns whether to go on."""
    try:
        cv2.imshow('hadaptive_runtime: q ends', picture)
        return cv2.waitKey(1) & 0xFF != ord('q')
    except cv2.error as error:
        raise ExportError(
            'this OpenCV has no windows: leave --show away, or pip install opencv-python'
        ) from error


def _choose_targets(sources: Sources, out: Path) -> dict[Path | str | int, Path]:
    """Returns the file to write for each source. No two are the same, and none is a source."""
    targets: dict[Path | str | int, Path] = {}
    taken: dict[Path, Path | str | int] = {}
    for source, name in (*sources.images.items(), *sources.videos.items()):
        is_video = source in sources.videos
        # The suffix of the source may not be one that can be written.
        kept = {'.mp4'} if is_video else WRITTEN_SUFFIXES
        suffix = '' if Path(name).suffix.lower() in kept else '.mp4' if is_video else '.jpg'
        target = out / f'{name}{suffix}'
        if len(os.fsencode(target.name)) > LONGEST_NAME:
            raise ExportError(
                f'{target} has a name of more than {LONGEST_NAME} bytes: rename {source}'
            )
        if target in taken:
            raise ExportError(
                f'{taken[target]} and {source} would both be written to {target}: predict them one '
                'after the other, each with an --out of its own'
            )
        targets[source], taken[target] = target, source
    read = {source.resolve() for source in targets if isinstance(source, Path)}
    for target in taken:
        if target.resolve() in read:
            raise ExportError(f'{target} would overwrite what is read: name another --out')
    return targets


def _check_formats(sources: Sources, save: Sequence[str]) -> None:
    wrong = [name for name in save if name in OF_IMAGES]
    if sources.videos and wrong:
        raise ExportError(
            f'{", ".join(wrong)} cannot hold frames of videos: save pictures or csv, or write the '
            'frames as images first'
        )
    if 'yolo' in save:
        taken: dict[str, str] = {}
        for name in sources.images.values():
            other = taken.setdefault(yolo_name(name), name)
            if other != name:
                raise ExportError(
                    f'{other} and {name} would have the same YOLO file: rename one of them, or '
                    'save coco'
                )


def _print_note(text: str) -> None:
    print(f'note: {text}', file=sys.stderr)


def _run(args: argparse.Namespace) -> None:
    if args.out.exists() and not args.out.is_dir():
        raise ExportError(f'{args.out} is not a folder: name one with --out')
    sources = find_sources(args.source, args.out, args.recursive)
    save = tuple(dict.fromkeys(args.save))
    # Errors are raised before the detector is loaded.
    _choose_targets(sources, args.out)
    _check_formats(sources, save)
    detector = load_exported(args.model)
    for note in sources.notes:
        _print_note(note)
    names = drawable_names(detector.classes)
    drawn = [
        f'{name} as {shown}'
        for name, shown in zip(detector.classes, names, strict=True)
        if name != shown
    ]
    if drawn and PICTURES in save:
        _print_note(
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
