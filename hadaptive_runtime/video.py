"""Videos and cameras: read, annotated, and written whole or not at all."""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from .errors import ExportError

VIDEOS = {'.mp4', '.m4v', '.avi', '.mov', '.mkv', '.webm', '.mpg', '.mpeg', '.wmv', '.mts', '.3gp'}
# Containers without a table of their frames announce them by duration and rate, not to the frame.
_MIN_COMPLETE = 0.95
_DEFAULT_RATE = 30.0


class VideoSource:
    """The frames of a video or of a camera, to iterate over.

    Args:
        source: A file, or the number of a camera.

    Attributes:
        source: As given.
        rate: Frames per second.
        num_frames: As the file announces it; None of a camera.

    Raises:
        ExportError: If nothing can be read from it; while iterating, also if the file ends before
            what it announces.
    """

    def __init__(self, source: Path | int) -> None:
        self.source = source
        _check_name(source)
        self._capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
        is_read, self._first = self._capture.read()
        if not is_read:
            raise ExportError(
                f'camera {source} gives no image: connect it, close what else uses it, or name '
                'another number'
                if self.is_camera
                else f'{source} cannot be read as a video, or is truncated: replace it'
            )
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if math.isfinite(rate) and rate > 0 else _DEFAULT_RATE
        announced = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.num_frames = None if self.is_camera or announced < 1 else int(announced)

    @property
    def is_camera(self) -> bool:
        """Whether it is not a file."""
        return isinstance(self.source, int)

    def __iter__(self) -> Iterator[np.ndarray]:
        """(H, W, 3), uint8, BGR."""
        frame, number = self._first, 0
        is_read = True
        while is_read:
            yield frame
            number += 1
            is_read, frame = self._capture.read()
        self._capture.release()
        if self.num_frames and number < _MIN_COMPLETE * self.num_frames:
            raise ExportError(
                f'{self.source} ends after {number} of {self.num_frames} frames, it is truncated: '
                'replace it'
            )


def annotate_video(
    source: VideoSource, file: Path, annotate: Callable[[np.ndarray], np.ndarray]
) -> int:
    """Writes a video of annotated frames, whole or not at all.

    The video of a camera ends with Ctrl+C; it is as long as the time that was recorded, however
    many frames were annotated in it.

    Args:
        source: Of the frames.
        file: The video to write, .mp4.
        annotate: From a frame to one of the same size.

    Returns:
        How many frames were annotated.

    Raises:
        ExportError: If the source is truncated, or the video cannot be written. Nothing is.
        KeyboardInterrupt: Of a camera only before its first frame.
    """
    _check_name(file)
    unfinished = file.with_name(f'{file.stem}.unfinished{file.suffix}')
    writer, number, written, start = None, 0, 0, time.perf_counter()
    try:
        try:
            for frame in source:
                picture = annotate(frame)
                number += 1
                if writer is None:
                    codec = cv2.VideoWriter_fourcc(*'mp4v')
                    size = picture.shape[1::-1]
                    writer = cv2.VideoWriter(str(unfinished), codec, source.rate, size)
                wanted = number
                if source.is_camera:
                    wanted = math.ceil((time.perf_counter() - start) * source.rate)
                for _ in range(wanted - written):
                    writer.write(picture)
                written = max(written, wanted)
        except KeyboardInterrupt:
            if not source.is_camera or not number:
                raise
        if writer is not None:
            writer.release()
        # OpenCV does not say whether it could write.
        if not written or _count_frames(unfinished) != written:
            raise ExportError(
                f'{file} cannot be written: make room, make the folder writable, or name another '
                'with --out'
            )
        unfinished.replace(file)
    finally:
        if writer is not None:
            writer.release()
        unfinished.unlink(missing_ok=True)
    return number


def _check_name(file: Path | int) -> None:
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
