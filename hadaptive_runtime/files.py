"""Writes files completely or not at all."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from .errors import ExportError

UNFINISHED = '.unfinished'
# In bytes; most file systems allow no more.
LONGEST_NAME = 255


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Gives a temporary name to write to, and renames the file if nothing is raised.

    Args:
        file: The file to write. An old file of this name stays until the end.

    Yields:
        The temporary file: the name, shortened where needed, with :data:`UNFINISHED`.
    """
    name = file.name + UNFINISHED
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(file.name)).hexdigest() + UNFINISHED
    unfinished = file.with_name(name)
    try:
        yield unfinished
        unfinished.replace(file)
    except BaseException:
        # An error here would hide why the file could not be written.
        with suppress(OSError):
            unfinished.unlink()
        raise


def write_whole(file: Path, content: bytes) -> None:
    """Writes a file completely or not at all.

    Args:
        file: The file to write. Its folder must exist.
        content: The new content.

    Raises:
        ExportError: If the file cannot be written. An old file is then unchanged.
    """
    try:
        with replacing(file) as unfinished:
            unfinished.write_bytes(content)
    except OSError as error:
        raise ExportError(
            f'{file} cannot be written ({error.strerror}): make room, make the folder writable, or '
            'name another with --out'
        ) from error


def check_writable(folder: Path) -> None:
    """Checks that files can be written to a folder, or that the folder can be made.

    Args:
        folder: The folder.

    Raises:
        ExportError: If this is not possible.
    """
    folder = folder.absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ExportError(
            f'{existing} cannot be written to ({error.strerror}): make it a writable folder, or '
            'name another'
        ) from error
