"""Writes files and folders completely or not at all."""

import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
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
    write_all_whole({Path(path): content})


def write_all_whole(files: Mapping[Path, bytes | str]) -> None:
    """Writes files that belong together, like :func:`write_whole`. None is renamed before the last.

    Args:
        files: The content of each file. Text is written in UTF-8.

    Raises:
        OSError: If a file cannot be written. The old files are then unchanged.
    """
    contents = {p: c.encode() if isinstance(c, str) else c for p, c in files.items()}
    try:
        with ExitStack() as stack:
            for path, data in contents.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                with stack.enter_context(replacing(path)).open('wb') as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
    except OSError as error:
        size = sum(map(len, contents.values())) / 2**20
        message = f'{error.strerror}: cannot write {", ".join(map(str, files))} ({size:.1f} MiB)'
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
