"""Reads images, and splits them into training and validation images."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from rich.progress import track

from hadaptive_runtime.errors import describe_error

from ..datasets.decoding import DeepImageError, decode_image
from ..datasets.findings import Finding, note
from .annotations import LabeledFolder, LabeledImage, PreparationError

# So many bits of a fingerprint may differ between near-duplicates. A fingerprint has four words, so
# at least one word of two near-duplicates is equal.
_MAX_DISTANCE = 3
_WORDS = 4
# An image is compared with so many groups that share a word. Near-duplicates often follow each
# other.
_COMPARED = 64
# A group is cut into so many parts for each share of validation images.
_PARTS = 4


@dataclass(frozen=True)
class ImageFile:
    """An image as the training reads it.

    Attributes:
        size: Width and height in pixels, after the rotation by EXIF data. None if it is unreadable.
        fingerprint: 64 bits. Those of near-duplicates are almost equal.
        error: The reason why it is unreadable.
        is_deep: Whether it is unreadable because it has more than 8 bits per channel.
        is_huge: Whether it is unreadable because it has more pixels than ``MAX_PIXELS``.
    """

    size: tuple[int, int] | None
    fingerprint: int = 0
    error: str = ''
    is_deep: bool = False
    is_huge: bool = False


def read_image_files(paths: Sequence[Path]) -> list[ImageFile]:
    """Decodes images as our configs do.

    Args:
        paths: The image files.

    Returns:
        A result for each path.
    """
    with ThreadPoolExecutor() as pool:
        return list(
            track(pool.map(_read, paths), 'reading images', total=len(paths), transient=True)
        )


def group_near_duplicates(fingerprints: Sequence[int]) -> list[list[int]]:
    """Groups images whose fingerprints differ from that of the first by at most three bits.

    An image joins the group whose first image is nearest. These are not connected components: a
    chain of small steps would join all pictures of a camera. The time is proportional to the number
    of images, because an image is compared only with the latest groups that share a word with it.

    Args:
        fingerprints: The fingerprint of each image (:class:`ImageFile`).

    Returns:
        Groups of indices. Each is in rising order. The groups are in the order of their first
        index.
    """
    groups: dict[int, list[int]] = {}
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, value in enumerate(fingerprints):
        if value in groups:
            groups[value].append(index)
            continue
        keys = [(word, value >> (16 * word) & 0xFFFF) for word in range(_WORDS)]
        near = {first for key in keys for first in buckets[key][-_COMPARED:]}
        distance, first = min(((value ^ n).bit_count(), n) for n in near) if near else (64, 0)
        if distance <= _MAX_DISTANCE:
            groups[first].append(index)
            continue
        groups[value] = [index]
        for key in keys:
            buckets[key].append(value)
    return list(groups.values())


def cut_large_groups(
    groups: Sequence[Sequence[int]], val_fraction: float
) -> tuple[list[list[int]], list[list[int]]]:
    """Cuts groups that are larger than the validation set, for example of a fixed camera.

    Args:
        groups: Indices of images that look nearly the same.
        val_fraction: The share of validation images.

    Returns:
        The groups, and those that were cut into runs of consecutive images. Groups of one or two
        images are not cut.
    """
    share = val_fraction * sum(map(len, groups))
    result, cut = [], []
    for group in map(list, groups):
        if len(group) <= max(share, 2):
            result.append(group)
            continue
        cut.append(group)
        size = max(round(share / _PARTS), 1)
        result += [group[start : start + size] for start in range(0, len(group), size)]
    return result, cut


def split_groups(groups: Sequence[Sequence[int]], val_fraction: float, seed: int) -> set[int]:
    """Chooses validation images, whole groups at a time.

    Args:
        groups: Indices of images that belong together.
        val_fraction: The share of images to choose, in 0..1.
        seed: The seed for the order in which groups are tried.

    Returns:
        The indices of the chosen images: at most the share, but at least one if there are two
        groups.
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


def divide(
    images: Sequence[LabeledImage],
    files: Sequence[ImageFile],
    labeled: LabeledFolder,
    val_fraction: float,
    seed: int,
    together: bool,
) -> tuple[list[str], list[Finding]]:
    """Gives each image a split, by the folder, or at random.

    Args:
        images: The usable images.
        files: Their files.
        labeled: The annotations of the folder.
        val_fraction: The share of validation images to draw.
        seed: The seed for drawing them.
        together: Whether near-duplicates are drawn for the same split.

    Returns:
        'train', 'val' or 'test' for each image, and findings.

    Raises:
        PreparationError: If there are no training images, if no validation images can be drawn, or
            if there are lists of images without any matching image.
    """
    groups = (
        group_near_duplicates([file.fingerprint for file in files])
        if together
        else [[index] for index in range(len(files))]
    )
    splits, findings = _complete_splits(images)
    if 'val' not in splits:
        if labeled.lost_lists:
            raise PreparationError(
                f'no line of a list of images fits an image, the first is {labeled.lost_lists[0]}: '
                'correct or remove the list'
            )
        groups, cut = cut_large_groups(groups, val_fraction)
        if len(groups) < 2:
            raise PreparationError(
                f'{len(images)} image(s), all nearly the same, cannot be divided into two sets: '
                'add others, or put some into a folder val'
            )
        chosen = split_groups(groups, val_fraction, seed)
        splits = ['val' if i in chosen else 'train' for i in range(len(images))]
        findings += note(
            f'the folder names no validation images; {len(chosen)} were drawn with seed {seed}',
            'To choose them, put images into folders train and val',
        )
        findings += note(
            'groups of images that look nearly the same are larger than the validation set',
            'They are divided in runs of consecutive images; validation images like the training '
            'images flatter the detector',
            (f'{len(group)} images like {images[group[0]].path}' for group in cut),
        )
    if 'train' not in splits:
        raise PreparationError(
            f'there are no training images, only {", ".join(sorted(set(splits)))}: name the folder '
            'that has both, or one whose name is no split'
        )
    return splits, findings + _find_leaks(images, groups, splits)


def _complete_splits(images: Sequence[LabeledImage]) -> tuple[list[str], list[Finding]]:
    """Returns the splits of all images, if the folder names validation or test images."""
    splits = [image.split for image in images]
    named = Counter(splits)
    findings: list[Finding] = []
    # If it names training images only, the others are the validation images.
    rest = 'val' if named['train'] and not named['val'] and not named['test'] else 'train'
    if named.keys() - {None}:
        findings += note(
            'images are in no split',
            'They are trained on' if rest == 'train' else 'They are validated on',
            (str(i.path) for i, split in zip(images, splits, strict=True) if split is None),
        )
    if named['test'] and not named['val']:
        findings += note('there are test, but no validation images', 'They are validated on')
        splits = ['val' if split == 'test' else split for split in splits]
    return [split or rest for split in splits], findings


def _find_leaks(
    images: Sequence[LabeledImage], groups: Sequence[Sequence[int]], splits: Sequence[str]
) -> list[Finding]:
    leaks = []
    for group in groups:
        learned = [i for i in group if splits[i] == 'train']
        leaks += [
            f'{images[i].path} like {images[learned[0]].path}'
            for i in group
            if learned and splits[i] != 'train'
        ]
    return note(
        'validation or test images look nearly the same as training images',
        'They flatter the detector: put such images into one split',
        leaks,
    )


def _read(path: Path) -> ImageFile:
    try:
        pixels = decode_image(path.read_bytes())
    except DeepImageError as error:
        return ImageFile(None, error=str(error), is_deep=True)
    except Image.DecompressionBombError as error:
        return ImageFile(None, error=str(error), is_huge=True)
    # Decoders raise errors of almost any type for damaged files.
    except Exception as error:
        return ImageFile(None, error=describe_error(error))
    # A difference hash: is each of 8 x 8 areas brighter than its right neighbour?
    small = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), (9, 8), None, 0, 0, cv2.INTER_AREA)
    bits = np.packbits(small[:, 1:] > small[:, :-1])
    return ImageFile(pixels.shape[1::-1], int.from_bytes(bits.tobytes(), 'big'))
