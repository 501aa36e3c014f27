"""Predicts images, videos and the images of cameras, and writes the results."""

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
from .files import LONGEST_NAME, check_writable, write_whole
from .images import WRITTEN_SUFFIXES, has_several_images, read_image, write_image
from .predictions import OF_IMAGES, TABLES, Prediction, make_tables, yolo_name
from .sources import Sources, describe
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
    targets = check_request(sources, out, save)
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
        with hold_interrupts() if video.is_live else nullcontext(()) as interrupts:
            try:
                _predict_video(video, name, target, predictor, show, interrupts)
            except ExportError as error:
                # All others are predicted, and the tables are written.
                problems.append(str(error))
            else:
                print(predictor.summary('frames', str(target or out)))
                if video.note:
                    print_note(video.note)
        predictions += predictor.predictions
        if signal.SIGTERM in interrupts:
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
        except ExportError as error:
            refused.setdefault(str(error).removeprefix(f'{file}: '), []).append(name)
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
        print_note(f'of files with several images the first is predicted, {describe(paged)}')
    return refused


def _predict_video(
    video: VideoSource,
    name: str,
    target: Path | None,
    predictor: Predictor,
    show: bool,
    interrupts: Sequence[int],
) -> None:
    """Predicts a video until it ends or is stopped."""
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(target, video.rate, not video.is_live) if target else nullcontext() as writer:
        for number, (frame, seconds) in enumerate(video):
            picture = predictor(frame, name, number, seconds)
            if writer is not None:
                writer.write(picture, seconds)
            if interrupts or (show and not _show(picture)):
                break
        if writer is not None:
            writer.finish()


def _show(picture: np.ndarray) -> bool:
    """Shows a picture in a window. Returns whether to go on."""
    try:
        cv2.imshow('hadaptive_runtime: q ends', picture)
        return cv2.waitKey(1) & 0xFF != ord('q')
    except cv2.error as error:
        raise ExportError(
            'this OpenCV has no windows: leave --show away, or pip install opencv-python'
        ) from error


def check_request(sources: Sources, out: Path, save: Sequence[str]) -> dict[Path | str | int, Path]:
    """Checks whether the results of all sources can be written, before anything is predicted.

    Args:
        sources: The result of :func:`find_sources`.
        out: The folder of the results.
        save: The kinds of results, see :func:`predict`.

    Returns:
        The file to write for each source. No two are the same, and none is a source.

    Raises:
        ExportError: If something cannot be written.
    """
    check_writable(out)
    _check_formats(sources, save)
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


def print_note(text: str) -> None:
    """Prints a remark that is not an error."""
    print(f'note: {text}', file=sys.stderr)
