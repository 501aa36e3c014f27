"""Detects objects in images, a video, or what a camera sees, with an exported detector."""

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np

from .detector import Detector
from .errors import ExportError
from .images import IMAGES, draw, read_image, write_image
from .loading import load_exported
from .video import VIDEOS, VideoSource, annotate_video

_BAR = 30


class Annotator:
    """Draws what a detector finds, and says on a terminal how far it has come.

    Args:
        detector: Of the objects.
        threshold: Lowest score that is drawn.
        total: Number of images; None if that is not known.

    Attributes:
        seconds: For each image, of preparing and detecting.
    """

    def __init__(self, detector: Detector, threshold: float, total: int | None) -> None:
        self.detector = detector
        self.threshold = threshold
        self.total = total
        self.seconds: list[float] = []
        self.start = time.perf_counter()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Returns a copy of an image (H, W, 3) with what is found in it."""
        start = time.perf_counter()
        found = self.detector(image)
        self.seconds.append(time.perf_counter() - start)
        if sys.stderr.isatty():
            print(f'\r{self.progress()} ', end='', file=sys.stderr, flush=True)
        return draw(image, found, len(self.detector.classes), self.threshold)

    def progress(self) -> str:
        """A bar, the number of images, and how many a second, reading and drawing included."""
        done = len(self.seconds)
        rate = f'{done / (time.perf_counter() - self.start):.1f} per second'
        if self.total is None:
            return f'{done}, {rate}'
        filled = min(_BAR * done // self.total, _BAR)
        return f'[{"#" * filled}{"." * (_BAR - filled)}] {done}/{self.total}, {rate}'

    def summary(self, kind: str, out: Path) -> str:
        """Says the same and the median latency in one line."""
        count = len(self.seconds)
        rate = count / (time.perf_counter() - self.start)
        if sys.stderr.isatty():
            print(file=sys.stderr)
        return (
            f'{kind}: {count}, median latency: {1000 * np.median(self.seconds):.1f} ms, '
            f'{rate:.1f} per second, written: {out}'
        )


def _annotate_images(targets: dict[Path, Path], out: Path, annotator: Annotator) -> None:
    unreadable = []
    for file, target in targets.items():
        try:
            image = read_image(file)
        except OSError as error:
            unreadable.append(f'{file.name} ({error.strerror})')
            continue
        if image is None:
            unreadable.append(file.name)
            continue
        write_image(target, annotator(image))
    if annotator.seconds:
        print(annotator.summary('images', out))
    if unreadable:
        raise ExportError(
            f'{len(unreadable)} not readable, empty or truncated, replace: {", ".join(unreadable)}'
        )


def _annotate_video(video: VideoSource, file: Path, annotator: Annotator, show: bool) -> None:
    annotate: Callable[[np.ndarray], np.ndarray] = _shown(annotator) if show else annotator
    annotate_video(video, file, annotate)
    print(annotator.summary('frames', file))


def _shown(annotator: Annotator) -> Callable[[np.ndarray], np.ndarray]:
    def annotate(image: np.ndarray) -> np.ndarray:
        picture = annotator(image)
        try:
            cv2.imshow('hadaptive_runtime: q ends', picture)
            key = cv2.waitKey(1)
        except cv2.error as error:
            raise ExportError(
                'this OpenCV has no windows: leave --show away, or pip install opencv-python'
            ) from error
        if key == ord('q'):
            raise KeyboardInterrupt
        return picture

    return annotate


def _find_images(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    files = sorted(file for file in source.iterdir() if file.suffix.lower() in IMAGES)
    if not files:
        raise ExportError(f'{source}: no image ({", ".join(sorted(IMAGES))})')
    return files


def _choose_targets(files: Iterable[Path], out: Path) -> dict[Path, Path]:
    """The file that each image or video is written to, none of which is read."""
    targets = {}
    for file in files:
        is_video = file.suffix.lower() in VIDEOS
        # What the file is called does not say how it is to be written.
        kept = {'.mp4'} if is_video else IMAGES
        suffix = '' if file.suffix.lower() in kept else '.mp4' if is_video else '.jpg'
        targets[file] = out / f'{file.name}{suffix}'
    read = {file.resolve() for file in targets}
    for target in targets.values():
        if target.resolve() in read:
            raise ExportError(f'{target} would overwrite what is read: name another --out')
    return targets


def _predict(args: argparse.Namespace) -> None:
    is_camera = args.source.isdigit() and not Path(args.source).exists()
    source: Path | int = int(args.source) if is_camera else Path(args.source)
    if isinstance(source, Path):
        if not source.exists():
            raise ExportError(f'{source}: no such image, folder or video')
        targets = _choose_targets(_find_images(source), args.out)
    detector = load_exported(args.model)
    if isinstance(source, int) or source.suffix.lower() in VIDEOS:
        video = VideoSource(source)
        args.out.mkdir(parents=True, exist_ok=True)
        file = args.out / f'camera-{source}.mp4' if isinstance(source, int) else targets[source]
        annotator = Annotator(detector, args.threshold, video.num_frames)
        _annotate_video(video, file, annotator, args.show)
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        _annotate_images(targets, args.out, Annotator(detector, args.threshold, len(targets)))


def score(text: str) -> float:
    """The score that a text is; argparse names this function where it is none."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'must be in 0..1, 0.3 for 30 %, got {text}')
    return value


def main() -> None:
    """Draws the detections and prints how long each image takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', type=Path, help='a file of tools/export.py')
    parser.add_argument(
        'source', help='an image, a folder of images, a video, or the number of a camera (Ctrl+C)'
    )
    parser.add_argument('--out', type=Path, default=Path('outputs'), help='folder, default outputs')
    parser.add_argument('--threshold', type=score, default=0.3, help='lowest score to draw')
    parser.add_argument('--show', action='store_true', help='show a video or a camera in a window')
    args = parser.parse_args()
    try:
        _predict(args)
    except (ExportError, OSError) as error:
        raise SystemExit(f'error: {error}') from error
    except KeyboardInterrupt:
        raise SystemExit('stopped') from None
