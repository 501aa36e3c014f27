"""Writes files and folders completely or not at all."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from hadaptive_runtime.files import UNFINISHED, replacing


def write_whole(content: bytes | str, path: str | Path) -> None:
    """Writes a file completely or not at all.

    It writes the content under another name (with :data:`UNFINISHED` appended), flushes it to the
    disk and renames it. So the file's own name never has a part of the content.

    Args:
        content: The content. Text is written in UTF-8.
        path: The file. Missing folders are made.

    Raises:
        OSError: If the file cannot be written, for example because the disk is full. It names the
            file, its size and the free space. An old file is then unchanged.
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
    """Writes a folder completely or not at all, and replaces an old one.

    It writes the folder under another name, like :func:`write_whole`, and renames it. Between two
    renamings no folder of this name exists for a moment, but it never exists in part.

    Args:
        files: The content of each file, by its path in the folder.
        folder: The folder. Its old content is lost.

    Raises:
        OSError: If it cannot be written. The old folder is then unchanged.
    """
    folder = Path(folder).resolve()
    unfinished = folder.with_name(folder.name + UNFINISHED)
    replaced = folder.with_name(f'{folder.name}.replaced{UNFINISHED}')
    if replaced.exists() and not folder.exists():
        # A process was killed between the two renamings.
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
