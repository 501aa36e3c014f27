"""Reads images, and divides them into training and validation images."""

import random
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
from mmcv.image import imfrombytes
from rich.progress import track

from ..utils.errors import describe_error

# Bits of a fingerprint that may differ between near-duplicates; they lie in one of four words, so
# that at least one word of two near-duplicates is the same.
_MAX_DISTANCE = 3
_WORDS = 4


@dataclass(frozen=True)
class ImageFile:
    """An image as training reads it.

    Attributes:
        size: Width and height in pixels, turned as its EXIF data says; None if it is unreadable.
        fingerprint: 64 bits, of which near-duplicates share nearly all.
        error: Why it is unreadable.
    """

    size: tuple[int, int] | None
    fingerprint: int = 0
    error: str = ''


def read_image_files(paths: Sequence[Path]) -> list[ImageFile]:
    """Decodes images as our configs do.

    Args:
        paths: The files.

    Returns:
        One for each path.
    """
    with ThreadPoolExecutor() as pool:
        return list(
            track(pool.map(_read, paths), 'reading images', total=len(paths), transient=True)
        )


def group_near_duplicates(fingerprints: Sequence[int]) -> list[list[int]]:
    """Groups images whose fingerprints differ by at most three bits, directly or by steps.

    Args:
        fingerprints: Of the images (:class:`ImageFile`).

    Returns:
        Groups of indices, each in rising order, by their first.
    """
    parents = list(range(len(fingerprints)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    same: dict[int, list[int]] = defaultdict(list)
    for index, value in enumerate(fingerprints):
        same[value].append(index)
    pairs = [(group[0], index) for group in same.values() for index in group[1:]]
    for word in range(_WORDS):
        buckets: dict[int, list[int]] = defaultdict(list)
        for value in same:
            buckets[value >> (16 * word) & 0xFFFF].append(value)
        pairs += [
            (same[a][0], same[b][0])
            for bucket in buckets.values()
            for a, b in combinations(bucket, 2)
            if (a ^ b).bit_count() <= _MAX_DISTANCE
        ]
    for pair in pairs:
        first, second = sorted(map(root, pair))
        parents[second] = first
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(parents)):
        groups[root(index)].append(index)
    return list(groups.values())


def split_groups(groups: Sequence[Sequence[int]], val_fraction: float, seed: int) -> set[int]:
    """Chooses validation images, whole groups at a time.

    Args:
        groups: Indices of images that belong together.
        val_fraction: The share of images to choose, in 0..1.
        seed: Of the order in which groups are tried.

    Returns:
        The indices of the chosen images: at most the share, of two groups or more at least one.
    """
    total = sum(map(len, groups))
    chosen: set[int] = set()
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    for group in order:
        if len(chosen) + len(group) <= max(val_fraction * total, 1):
            chosen.update(group)
    if not chosen and len(order) > 1:
        chosen.update(min(order, key=len))
    return chosen


def _read(path: Path) -> ImageFile:
    try:
        pixels = imfrombytes(path.read_bytes(), backend='pillow')
    # Damaged files make decoders raise almost anything.
    except Exception as error:
        return ImageFile(None, error=describe_error(error))
    # Whether each of 8 x 8 areas is brighter than its right neighbour (difference hash).
    small = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), (9, 8), None, 0, 0, cv2.INTER_AREA)
    bits = np.packbits(small[:, 1:] > small[:, :-1])
    return ImageFile(pixels.shape[1::-1], int.from_bytes(bits.tobytes(), 'big'))
