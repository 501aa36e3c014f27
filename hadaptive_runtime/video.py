"""Reads videos and cameras, and writes annotated videos whole or not at all."""

import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import cv2
import numpy as np

from .errors import ExportError
from .sources import hide_password

_DEFAULT_RATE = 30.0
# Some containers announce the ticks of their clock for their frames, 90,000 a second.
_MAX_RATE = 1000.0
# A part of the announced length that may be missing without a word.
_SLACK = 0.05
# A longer way from one frame to the next, in seconds, is a defect of the clock.
_MAX_GAP = 600.0
# As far as the rate of a container and that of its frames may differ, by rounding.
_SAME_RATE = 0.1


class VideoSource:
    """The frames of a video, of a camera or of a stream, to iterate over, with their times.

    Number and rate of frames, as a container announces them, are guesses: the times are those of
    the frames.

    Args:
        source: A file, the number of a camera, its device, or an address.

    Attributes:
        source: The source as given.
        is_live: Whether the frames come as time goes by, as those of cameras do.
        rate: Frames per second, of which every frame of a video has a place of its own.
        num_frames: How many frames there seem to be; None if nothing says it.
        note: After the iteration, what is odd about its end; None if nothing is.

    Raises:
        ExportError: If nothing can be read from it.
    """

    def __init__(self, source: Path | str | int) -> None:
        self.source = source
        self.note: str | None = None
        _check_name(source)
        self._capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
        is_read, self._first = self._capture.read()
        if not is_read:
            raise ExportError(_describe_failure(source))
        announced = self._capture.get(cv2.CAP_PROP_FPS)
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        is_announced = math.isfinite(announced) and announced > 0
        # An address may be that of a file.
        self.is_live = not isinstance(source, Path) and not count >= 1
        times = _read_times(source) if isinstance(source, Path) else []
        self.rate = _choose_rate(announced if is_announced else 0.0, times)
        self.num_frames = len(times) or (int(count) if count >= 1 else None)
        self._length = count / announced if is_announced and count >= 1 else 0.0

    def __iter__(self) -> Iterator[tuple[np.ndarray, float]]:
        """Each frame, (H, W, 3), uint8, BGR, and its time in seconds, rising from 0."""
        start = time.perf_counter()
        frame, seconds, number = self._first, 0.0, 0
        clock = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        # A part of the announced length, where it is not 0.
        begin = max(clock, 0.0)
        is_read = True
        while is_read:
            yield frame, seconds
            number += 1
            is_read, frame = self._capture.read()
            if self.is_live:
                seconds = time.perf_counter() - start
                continue
            before, clock = clock, self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            is_next = is_read and 0 < clock - before < _MAX_GAP
            seconds += clock - before if is_next else 1 / self.rate
        self._capture.release()
        shown = hide_password(self.source)
        if self.is_live:
            self.note = f'{shown} ended by itself after {number} frames'
        elif begin + seconds < (1 - _SLACK) * self._length:
            self.note = (
                f'{shown} announces {self._length:.1f} seconds and ends after {seconds:.1f} '
                f'({number} frames): all of these are predicted; if there should be more, the file '
                'is damaged or was cut'
            )


class VideoWriter:
    """Writes a video whole or not at all; to be used in a ``with`` statement.

    Every picture is shown until the time of the next one.

    Args:
        file: The video to write, .mp4.
        rate: Frames per second.
        keep_all: Whether pictures that come faster than the rate are written as well, each as one
            frame; otherwise they are left out, so that the times stay right.

    Raises:
        ExportError: If the video cannot be written.
    """

    def __init__(self, file: Path, rate: float, keep_all: bool) -> None:
        _check_name(file)
        self._file = file
        # The clock of the format has 65,536 ticks at most.
        self._rate = round(rate, 2) if rate < 600 else float(round(rate))
        self._keep_all = keep_all
        # Another process may write a video of the same name.
        unfinished = f'{file.stem[:40]}.{uuid4().hex[:8]}.unfinished{file.suffix}'
        self._unfinished = file.with_name(unfinished)
        self._writer: cv2.VideoWriter | None = None
        self._shown: np.ndarray | None = None
        self._count = 0

    def __enter__(self) -> 'VideoWriter':
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.release()
        # What is wrong there would hide why it could not be written.
        with suppress(OSError):
            self._unfinished.unlink()

    def write(self, picture: np.ndarray, seconds: float) -> None:
        """Appends a picture.

        Args:
            picture: (H, W, 3), uint8, BGR; is resized to the first one's size.
            seconds: The time from which on it is shown.
        """
        if self._writer is None:
            codec = cv2.VideoWriter_fourcc(*'mp4v')
            size = picture.shape[1::-1]
            self._writer = cv2.VideoWriter(str(self._unfinished), codec, self._rate, size)
            self._shown = picture
            if not self._writer.isOpened():
                self._refuse()
        if picture.shape != self._shown.shape:
            picture = cv2.resize(picture, self._shown.shape[1::-1])
        place = round(seconds * self._rate)
        if place < self._count and not self._keep_all:
            return
        for _ in range(place - self._count):
            self._writer.write(self._shown)
        self._writer.write(picture)
        self._count = max(place, self._count) + 1
        self._shown = picture

    def finish(self) -> None:
        """Gives the video its name."""
        if self._writer is not None:
            self._writer.release()
        # OpenCV does not say whether it could write.
        if not self._count or _count_frames(self._unfinished) != self._count:
            self._refuse()
        self._unfinished.replace(self._file)

    def _refuse(self) -> None:
        raise ExportError(
            f'{self._file} cannot be written: make room, make the folder writable, or name another '
            'with --out'
        )


def name_recording(file: Path) -> Path:
    """Says what a recording that begins now is called.

    Args:
        file: The path of the recording, with the name of its camera only.

    Returns:
        The same path with date and time in the name; no such file exists.
    """
    while True:
        dated = file.with_stem(f'{file.stem}_{time.strftime("%Y-%m-%d_%H-%M-%S")}')
        if not dated.exists():
            return dated
        time.sleep(0.1)


@contextmanager
def hold_interrupts() -> Iterator[Sequence[int]]:
    """Lets Ctrl+C and SIGTERM break nothing off: a frame is written to its end, and so is a video.

    Where a program handles these signals in its own way, and in other threads than the main one,
    nothing is held.

    Yields:
        The signals that came so far.
    """
    interrupts: list[int] = []
    held = {}
    if threading.current_thread() is threading.main_thread():
        usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        held = {number: own for number, own in usual.items() if signal.getsignal(number) is own}
    for number in held:
        signal.signal(number, lambda number, _: interrupts.append(number))
    try:
        yield interrupts
    finally:
        for number, own in held.items():
            signal.signal(number, own)


def _describe_failure(source: Path | str | int) -> str:
    if isinstance(source, Path):
        return f'{source} cannot be read as a video, or is truncated: replace it'
    if isinstance(source, int):
        return (
            f'camera {source} gives no image: connect it, close what else uses it, or name another '
            'number'
        )
    return (
        f'{hide_password(source)} gives no image: see whether the address is right and the camera '
        'or server answers, and close what else uses it'
    )


def _read_times(file: Path) -> list[float]:
    """The times of all frames in seconds, read without decoding; nothing if OpenCV cannot."""
    capture = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    times = []
    while capture.grab():
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    capture.release()
    return times


def _choose_rate(announced: float, times: list[float]) -> float:
    """A rate at which frames that follow each other fast have places of their own."""
    rate = announced if 0 < announced <= _MAX_RATE else 0.0
    steps = np.diff(np.sort(times))
    steps = steps[steps > 0]
    if not len(steps):
        return rate or _DEFAULT_RATE
    # A few odd ones among them do not matter.
    measured = min(1 / float(np.percentile(steps, 10)), _MAX_RATE)
    return rate if abs(rate - measured) <= _SAME_RATE * measured else measured


def _check_name(file: Path | str | int) -> None:
    try:
        str(file).encode()
    except UnicodeEncodeError as error:
        # OpenCV would end the process.
        raise ExportError(f'{str(file)!r} is not in UTF-8: rename it') from error


def _count_frames(file: Path) -> int:
    capture = cv2.VideoCapture(str(file))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.read()[0] else 0
    capture.release()
    return count
