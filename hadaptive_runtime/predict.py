"""Detects objects in images and videos with an exported detector."""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from .errors import ExportError
from .images import IMAGES, draw, read_image
from .loading import load_exported

VIDEOS = {'.mp4', '.avi', '.mov', '.mkv', '.webm'}


def _frames(source: Path) -> Iterator[tuple[str, np.ndarray | None]]:
    """The name of each picture to write, and the image; None if it cannot be read."""
    if source.suffix.lower() in VIDEOS:
        video = cv2.VideoCapture(str(source))
        number = 0
        while (read := video.read())[0]:
            yield f'{source.stem}_{number:06}.jpg', read[1]
            number += 1
        if not number:
            yield source.name, None
    elif source.is_dir():
        for file in sorted(source.iterdir()):
            if file.suffix.lower() in IMAGES:
                yield file.name, read_image(file)
    else:
        name = source.name if source.suffix.lower() in IMAGES else f'{source.name}.jpg'
        yield name, read_image(source)


def main() -> None:
    """Draws the detections and prints how long each image takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', type=Path, help='a file of tools/export.py')
    parser.add_argument('source', type=Path, help='an image, a folder of images, or a video')
    parser.add_argument('--out', type=Path, default=Path('outputs'))
    parser.add_argument('--threshold', type=float, default=0.3, help='lowest score to draw')
    args = parser.parse_args()
    if not args.source.exists():
        raise SystemExit(f'{args.source}: no such image, folder or video')
    folder = args.source if args.source.is_dir() else args.source.parent
    if args.out.resolve() == folder.resolve():
        raise SystemExit(f'{args.out}: would overwrite the images, name another folder with --out')
    try:
        detector = load_exported(args.model)
    except (ExportError, OSError) as error:
        raise SystemExit(f'error: {error}') from error
    args.out.mkdir(parents=True, exist_ok=True)
    seconds, unreadable = [], []
    for name, image in _frames(args.source):
        if image is None:
            unreadable.append(name)
            continue
        start = time.perf_counter()
        found = detector(image)
        seconds.append(time.perf_counter() - start)
        picture = args.out / name
        drawn = draw(image, found, len(detector.classes), args.threshold)
        if not cv2.imwrite(str(picture), drawn):
            raise SystemExit(f'{picture}: cannot be written')
    if seconds:
        median = 1000 * np.median(seconds)
        print(f'images: {len(seconds)}, median latency: {median:.1f} ms, pictures: {args.out}')
    if unreadable:
        names = ', '.join(unreadable)
        sys.exit(
            f'{args.source}: {len(unreadable)} not readable, empty or truncated, replace: {names}'
        )
    if not seconds:
        sys.exit(f'{args.source}: no image ({", ".join(sorted(IMAGES))})')
