"""Files that are written whole or not at all."""

import os
import shutil
from pathlib import Path

UNFINISHED = '.unfinished'


def write_whole(content: bytes | str, path: str | Path) -> None:
    """Writes a file whole or not at all.

    The content is written under another name (:data:`UNFINISHED` is appended), flushed to the disk
    and then renamed, so that the file's own name never stands for a part of it.

    Args:
        content: What the file is to hold; text is written in UTF-8.
        path: The file; missing folders are made.

    Raises:
        OSError: If the file cannot be written, say because the disk is full; names the file, its
            size and the room that is left. What was there before is still there.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open('wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        message = f'{error.strerror}: {path} ({len(data) / 2**20:.1f} MiB) was not written'
        if path.parent.is_dir():
            free = shutil.disk_usage(path.parent).free / 2**20
            message += f'; {free:.1f} MiB are free there'
        raise OSError(
            error.errno, f'{message}: make room, make the folder writable, or choose another'
        ) from error
