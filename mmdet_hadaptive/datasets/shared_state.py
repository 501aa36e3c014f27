"""What one process has read, for all processes of a machine."""

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
except ImportError:  # Not on Windows, where each process reads for itself.
    fcntl = None


_LOCK = '.lock'
_KEPT_DAYS = 30


def share_state(key: str, stamp: str, build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Builds something once, and lets other processes of this user map it into their memory.

    Processes that ask at the same time wait for the first. The files lie in
    ``$XDG_CACHE_HOME/mmdet_hadaptive`` (``~/.cache`` if not set), readable for the user only, one
    set for each key: they are replaced where the stamp is another, and removed when nobody has
    asked for them in 30 days. If they cannot be written or locked, each process builds for itself.

    Args:
        key: What it is, a name that a file can have.
        stamp: Changes with what it was built from.
        build: Makes the state: arrays, which are mapped, and other values, which are pickled.

    Returns:
        The state, with arrays that cannot be written to.
    """
    folder = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'mmdet_hadaptive'
    if fcntl is None:
        return build()
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = stack.enter_context((folder / f'{key}{_LOCK}').open('a'))
            # Released when the file is closed, and when the process ends, however it does. Some
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
    # This one says that the others are there: it goes first and comes last.
    path.unlink(missing_ok=True)
    try:
        for name in arrays:
            file = path.with_name(f'{path.name}.{name}.npy')
            # Others may have mapped the old one, which lives on without a name.
            file.unlink(missing_ok=True)
            np.save(file, state[name])
        unfinished = path.with_name(f'{path.name}.unfinished')
        unfinished.write_bytes(pickle.dumps((stamp, sorted(arrays), values)))
        unfinished.replace(path)
    except BaseException:
        # On a full disk half of an array would stay and keep it full.
        _remove(path)
        raise


def _remove(path: Path) -> None:
    """Removes what is stored under a key, but for the lock, which a process may wait for."""
    for file in [path, *path.parent.glob(f'{path.name}.*')]:
        if not file.name.endswith(_LOCK):
            file.unlink(missing_ok=True)


def _remove_old(folder: Path) -> None:
    """Removes what nobody has asked for in a long time."""
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
    # A damaged file makes the decoders raise almost anything; it is written anew.
    except Exception:
        return None
