"""Files and folders that are written whole or not at all."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from hadaptive_runtime.files import UNFINISHED, replacing


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished, unfinished.open('wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        message = f'{error.strerror}: {path} ({len(data) / 2**20:.1f} MiB) was not written'
        if path.parent.is_dir():
            free = shutil.disk_usage(path.parent).free / 2**20
            message += f'; {free:.1f} MiB are free there'
        raise OSError(
            error.errno, f'{message}: make room, make the folder writable, or choose another'
        ) from error


def write_whole_folder(files: Mapping[str, bytes], folder: str | Path) -> None:
    """Writes a folder whole or not at all, in place of the one that is there.

    It is written under another name, as :func:`write_whole` does, and then renamed. For a moment
    between two renamings there is no folder of this name, but there is never a part of one.

    Args:
        files: The content of each file, by its path in the folder.
        folder: The folder; what is in it is lost.

    Raises:
        OSError: If it cannot be written; what was there before is still there.
    """
    folder = Path(folder).resolve()
    unfinished = folder.with_name(folder.name + UNFINISHED)
    replaced = folder.with_name(f'{folder.name}.replaced{UNFINISHED}')
    if replaced.exists() and not folder.exists():
        # A process was killed between the two.
        replaced.replace(folder)
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)
    try:
        for name, content in files.items():
            write_whole(content, unfinished / name)
        if folder.exists():
            folder.replace(replaced)
        try:
            unfinished.replace(folder)
        except BaseException:
            if replaced.exists():
                replaced.replace(folder)
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)
