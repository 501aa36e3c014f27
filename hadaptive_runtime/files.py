"""Files that are written whole or not at all."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import ExportError

UNFINISHED = '.unfinished'
# In bytes; most file systems allow no more.
LONGEST_NAME = 255


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Lets a file be written under another name, and renames it if nothing is raised.

    Args:
        file: The file to write; what is there stays until the end.

    Yields:
        What is to be written: the same name with :data:`UNFINISHED`, as far as it is short enough.
    """
    name = file.name + UNFINISHED
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(file.name)).hexdigest() + UNFINISHED
    unfinished = file.with_name(name)
    try:
        yield unfinished
        unfinished.replace(file)
    except BaseException:
        # What is wrong there would hide why it could not be written.
        with suppress(OSError):
            unfinished.unlink()
        raise


def write_whole(file: Path, content: bytes) -> None:
    """Writes a file whole or not at all.

    Args:
        file: The file to write. Its folder must exist.
        content: What it is to hold.

    Raises:
        ExportError: If the file cannot be written; what was there before is still there.
    """
    try:
        with replacing(file) as unfinished:
            unfinished.write_bytes(content)
    except OSError as error:
        raise ExportError(
            f'{file} cannot be written ({error.strerror}): make room, make the folder writable, or '
            'name another with --out'
        ) from error
