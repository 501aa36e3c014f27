"""Shares what one process has read with all processes of a machine."""

import os
import pickle
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

try:
    import fcntl
except ImportError:  # Windows does not have this module. There each process reads for itself.
    fcntl = None


_LOCK = '.lock'
_KEPT_DAYS = 30


def share_state(key: str, stamp: str, build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Builds a state once, and lets other processes of this user map it into their memory.

    If several processes ask at the same time, the others wait for the first. The files lie in
    ``$XDG_CACHE_HOME/mmdet_hadaptive`` (``~/.cache`` if it is not set). Only the user can read
    them. Each key has one set of files. It is replaced if the stamp has changed, and removed if
    nobody has asked for it in 30 days. Without a writable folder and locks, each process builds its
    own.

    Args:
        key: The name of the state. It must be valid as a file name.
        stamp: A text that changes when the sources of the state change.
        build: Makes the state. Arrays are mapped, and other values are pickled.

    Returns:
        The state. Its arrays are read-only.
    """
    folder = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'mmdet_hadaptive'
    if fcntl is None:
        return build()
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = stack.enter_context((folder / f'{key}{_LOCK}').open('a'))
            # The lock ends when the file is closed, and when the process ends in any way. Some
            # file systems of clusters have no locks.
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.utime(lock.name)
        except OSError as error:
            print_log(f'each process reads for itself: {error}', logger='current')
            return build()
        state = _read(folder / key, stamp)
        if state is not None:
            return state
        state = build()
        try:
            _remove_old(folder)
            _write(folder / key, stamp, state)
        except OSError as error:
            print_log(f'each process reads for itself: {error}', logger='current')
            return state
        return _read(folder / key, stamp) or state


def _write(path: Path, stamp: str, state: dict[str, Any]) -> None:
    values = {name: value for name, value in state.items() if not isinstance(value, np.ndarray)}
    arrays = state.keys() - values.keys()
    # This file says that the others are complete. So it is removed first and written last.
    path.unlink(missing_ok=True)
    try:
        for name in arrays:
            file = path.with_name(f'{path.name}.{name}.npy')
            # Other processes may have mapped the old file. It stays for them without a name.
            file.unlink(missing_ok=True)
            np.save(file, state[name])
        unfinished = path.with_name(f'{path.name}.unfinished')
        unfinished.write_bytes(pickle.dumps((stamp, sorted(arrays), values)))
        unfinished.replace(path)
    except BaseException:
        # On a full disk, half of an array would stay and take the space.
        _remove(path)
        raise


def _remove(path: Path) -> None:
    """Removes the files of a key, except for the lock, because a process may wait for it."""
    for file in [path, *path.parent.glob(f'{path.name}.*')]:
        if not file.name.endswith(_LOCK):
            file.unlink(missing_ok=True)


def _remove_old(folder: Path) -> None:
    """Removes files that nobody has asked for in a long time."""
    limit = time.time() - _KEPT_DAYS * 24 * 3600
    for lock in folder.glob(f'*{_LOCK}'):
        if lock.stat().st_mtime < limit:
            _remove(lock.with_name(lock.name.removesuffix(_LOCK)))
            lock.unlink(missing_ok=True)


def _read(path: Path, stamp: str) -> dict[str, Any] | None:
    try:
        found, arrays, values = pickle.loads(path.read_bytes())
        if found != stamp:
            return None
        return values | {
            name: np.load(path.with_name(f'{path.name}.{name}.npy'), mmap_mode='r').view(np.ndarray)
            for name in arrays
        }
    # Decoders raise errors of almost any type for a damaged file. It is written again.
    except Exception:
        return None
