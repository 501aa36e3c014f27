"""Reads videos and cameras, and writes annotated videos completely or not at all."""

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
# Some containers announce the ticks of their clock as frames, 90,000 per second.
_MAX_RATE = 1000.0
# If only this part of the announced length is missing, no note is printed.
_SLACK = 0.05
# A longer time between two frames, in seconds, is a defect of the clock.
_MAX_GAP = 600.0
# The rates of a container and of its frames may differ by this part, due to rounding.
_SAME_RATE = 0.1


class VideoSource:
    """Iterates over the frames of a video, a camera or a stream, with their times.

    The number and rate of frames that a container announces may be wrong. So the times come from
    the frames.

    Args:
        source: A file, the number of a camera, its device, or an address.

    Attributes:
        source: The source as given.
        is_live: Whether the frames come in real time, as from a camera.
        rate: Frames per second. At this rate no two frames of a video have the same place.
        num_frames: The expected number of frames. None if it is not known.
        note: After the iteration, a remark if the video ended too early. Else None.

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
        # An address may lead to a file.
        self.is_live = not isinstance(source, Path) and not count >= 1
        times = _read_times(source) if isinstance(source, Path) else []
        self.rate = _choose_rate(announced if is_announced else 0.0, times)
        self.num_frames = len(times) or (int(count) if count >= 1 else None)
        self._length = count / announced if is_announced and count >= 1 else 0.0

    def __iter__(self) -> Iterator[tuple[np.ndarray, float]]:
        """Yields each frame, (H, W, 3), uint8, BGR, and its time in seconds from the start."""
        start = time.perf_counter()
        frame, seconds, number = self._first, 0.0, 0
        clock = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        # The clock may not start at 0. The announced length includes this time.
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
    """Writes a video completely or not at all. Use it in a ``with`` statement.

    Each picture is shown until the time of the next one.

    Args:
        file: The video to write, .mp4.
        rate: Frames per second.
        keep_all: Whether pictures that come faster than the rate are also written, each as one
            frame. Otherwise they are left out, so that the times stay right.

    Raises:
        ExportError: If the video cannot be written.
    """

    def __init__(self, file: Path, rate: float, keep_all: bool) -> None:
        _check_name(file)
        self._file = file
        # The clock of MP4 has at most 65,536 ticks.
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
        # An error here would hide why the video could not be written.
        with suppress(OSError):
            self._unfinished.unlink()

    def write(self, picture: np.ndarray, seconds: float) -> None:
        """Appends a picture.

        Args:
            picture: (H, W, 3), uint8, BGR. It is resized to the size of the first one.
            seconds: The time at which it appears.
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
        """Completes the video and gives it its name."""
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
    """Chooses the name of a recording that begins now.

    Args:
        file: The path of the recording, with the name of the camera.

    Returns:
        The same path with date and time in the name. No such file exists yet.
    """
    while True:
        dated = file.with_stem(f'{file.stem}_{time.strftime("%Y-%m-%d_%H-%M-%S")}')
        if not dated.exists():
            return dated
        time.sleep(0.1)


@contextmanager
def hold_interrupts() -> Iterator[Sequence[int]]:
    """Holds Ctrl+C and SIGTERM back, so that a frame and its video are written completely.

    It holds nothing if the program has its own signal handlers, or in threads other than the main
    one.

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
    """Returns the times of all frames in seconds, without decoding. Empty if OpenCV cannot."""
    capture = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    times = []
    while capture.grab():
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    capture.release()
    return times


def _choose_rate(announced: float, times: list[float]) -> float:
    """Returns a rate at which even frames in quick succession have different places."""
    rate = announced if 0 < announced <= _MAX_RATE else 0.0
    steps = np.diff(np.sort(times))
    steps = steps[steps > 0]
    if not len(steps):
        return rate or _DEFAULT_RATE
    # A percentile, because a few steps may be wrong.
    measured = min(1 / float(np.percentile(steps, 10)), _MAX_RATE)
    return rate if abs(rate - measured) <= _SAME_RATE * measured else measured


def _check_name(file: Path | str | int) -> None:
    try:
        str(file).encode()
    except UnicodeEncodeError as error:
        # OpenCV would abort the process.
        raise ExportError(f'{str(file)!r} is not in UTF-8: rename it') from error


def _count_frames(file: Path) -> int:
    capture = cv2.VideoCapture(str(file))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.read()[0] else 0
    capture.release()
    return count
