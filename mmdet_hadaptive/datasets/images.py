"""Finds image files that are missing, damaged, or different from their annotation."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image
from rich.progress import track

from .decoding import MAX_PIXELS, DeepImageError, decode_image
from .findings import Finding, error

_BATCH = 256


def check_image_files(images: Sequence[dict[str, Any]], folder: Path) -> list[Finding]:
    """Finds missing files, without opening any.

    Args:
        images: The images of an annotation file, with a string ``file_name``.
        folder: The folder that the names are relative to.

    Returns:
        The findings.
    """
    if not folder.is_dir():
        return error(
            f'the image folder {folder} does not exist',
            "Set the data set's data_root and data_prefix, or put (or link) the images there",
        )
    # List each folder once. To ask for each of COCO's 118,000 files takes minutes on a network.
    listings: dict[Path, set[str]] = {}
    missing = []
    for image in images:
        path = folder / image['file_name']
        if path.parent not in listings:
            listings[path.parent] = _list_files(path.parent)
        if path.name not in listings[path.parent]:
            missing.append(str(path))
    return error(
        'image files do not exist', 'Copy them there or remove them from the file', missing
    )


def check_images(images: Sequence[dict[str, Any]], folder: Path) -> list[Finding]:
    """Decodes every image as training does, and compares its size with the annotated one.

    Args:
        images: The images of an annotation file, with ``file_name``, ``width``, ``height``.
        folder: The folder that the names are relative to.

    Returns:
        The findings. Missing files are passed over.
    """

    def problem(image: dict[str, Any]) -> tuple[str, str] | None:
        path = folder / image['file_name']
        try:
            pixels = decode_image(path.read_bytes())
        except FileNotFoundError:
            return None
        except DeepImageError as reason:
            return 'deep', f'{path}: {reason}'
        except Image.DecompressionBombError:
            return 'huge', str(path)
        # Decoders raise errors of almost any type for damaged files.
        except Exception as reason:
            return 'unreadable', f'{path}: {reason}'
        size, annotated = pixels.shape[1::-1], (image['width'], image['height'])
        if size != annotated:
            return 'size', f'{path}: {size}, annotated {annotated}'
        return None

    found: dict[str, list[str]] = {'unreadable': [], 'size': [], 'deep': [], 'huge': []}
    batches = range(0, len(images), _BATCH)
    with ThreadPoolExecutor() as pool:
        for start in track(batches, 'reading images', transient=True):
            # In chunks, because map would make an object for each image before it reads the first.
            for kind, place in filter(None, pool.map(problem, images[start : start + _BATCH])):
                found[kind].append(place)
    return [
        *error(
            'images are empty, truncated or not images',
            'Copy them again or remove them from the annotation file',
            found['unreadable'],
        ),
        *error(
            'images have another size than annotated (width, height)',
            'Correct the annotation file; if width and height are swapped, the boxes were drawn '
            'on the image before it was turned as its EXIF data says',
            found['size'],
        ),
        *error(
            'images have not 8 bits per channel',
            f'Convert them; {"".join(found["deep"][:1])}',
            (place.partition(': ')[0] for place in found['deep']),
        ),
        *error(
            f'images have more than {MAX_PIXELS:,} pixels, which Pillow does not decode',
            'Cut them into tiles, and their boxes with them',
            found['huge'],
        ),
    ]


def _list_files(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {
                entry.name
                for entry in entries
                if not entry.is_dir(follow_symlinks=False)
                # A link may be broken. Other entries need no further access to the disk.
                and (not entry.is_symlink() or Path(entry.path).exists())
            }
    except OSError:
        return set()
