"""Reads complete checkpoints of MMEngine's plain data, and refuses everything else.

Since torch 2.6 ``torch.load`` reads plain data only. MMEngine's checkpoints also hold its
``HistoryBuffer`` (the logged losses), its ``ConfigDict``, NumPy numbers and arrays, and names of
the buffer's statistics. This module allows exactly these.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, checkpoint

from hadaptive_runtime.errors import describe_error

_STATISTICS = ('min', 'max', 'current', 'mean')


class UnreadableCheckpointError(ValueError):
    """A checkpoint is damaged, missing, or holds other data than plain data."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint's plain data to the CPU.

    Args:
        path: The file.

    Returns:
        The content.

    Raises:
        OSError: If there is no such file, or it may not be read.
        UnreadableCheckpointError: If it is damaged or holds something else; names the file.
    """

    def load(path: str | Path) -> Any:
        allow_checkpoints()
        content = torch.load(path, map_location='cpu', weights_only=True)
        if not isinstance(content, dict):
            raise TypeError(f'it holds a {type(content).__name__}, not a dict')
        return content

    return _read_whole(path, load)


def load_checkpoint(path: str | Path) -> Any:
    """Loads a checkpoint to the CPU as MMEngine does.

    Args:
        path: A file or URL for MMEngine.

    Returns:
        The content.

    Raises:
        OSError: If there is no such file, or it may not be read.
        UnreadableCheckpointError: If it is damaged or holds something else; names the file.
    """
    name_unreadable_checkpoints()
    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')


def name_unreadable_checkpoints() -> None:
    """Lets MMEngine name the file if it cannot read a local checkpoint.

    Without this, errors come from the zip reader or from pickle. And a checkpoint with damaged
    weights is loaded without any error.
    """

    # MMEngine logs the name of this function.
    def load_from_local(filename: str, map_location: Any) -> Any:
        return _read_whole(filename, lambda path: checkpoint.load_from_local(path, map_location))

    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)


def _read_whole(path: str | Path, load: Callable[[str | Path], Any]) -> Any:
    path = Path(path).expanduser()
    # MMEngine has an error for missing files.
    with path.open('rb'):
        pass
    try:
        if zipfile.is_zipfile(path):
            # torch does not compare checksums.
            with zipfile.ZipFile(path) as archive:
                # torch.serialization.set_crc32_options(False) writes zeros instead.
                has_sums = any(entry.CRC for entry in archive.infolist())
                damaged = archive.testzip() if has_sums else None
            if damaged:
                raise zipfile.BadZipFile(f'{damaged} has another check sum than when it was saved')
        return load(str(path))
    # The readers of zip and pickle raise errors of almost any type for damaged files.
    except Exception as error:
        raise UnreadableCheckpointError(
            f'{path} cannot be read as plain weights: {_describe(error)}. Copy or download it '
            'again, or save its weights alone'
        ) from error


def _describe(error: Exception) -> str:
    # torch names the reason after two paragraphs about how to switch the check off.
    _, refused, reason = str(error).partition('WeightsUnpickler error: ')
    reason = reason.strip().split('. Please use')[0].partition('\n')[0]
    return reason if refused and reason else describe_error(error)


def _statistics_method(owner: Any, name: str) -> Callable[..., Any]:
    """Replaces ``getattr``, which pickle uses for the methods of ``HistoryBuffer``.

    The real ``getattr`` would give a checkpoint access to any object.
    """
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise UnpicklingError(f'refused to look up {name!r} of {owner!r} for a checkpoint')
    return getattr(owner, name)


# pickle looks this name up. torch before 2.6 reads it from the function only.
_statistics_method.__module__, _statistics_method.__qualname__ = 'builtins', 'getattr'
_statistics_method.__name__ = 'getattr'


def allow_checkpoints() -> None:
    """Lets ``torch.load`` accept MMEngine's types in checkpoints.

    The import of this module calls it. The fork of MMEngine undoes it after each loaded file.
    """
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            ConfigDict,
            _statistics_method,
            np.ndarray,
            np.dtype,
            # pickle makes arrays and scalars with these. Their module depends on NumPy's version.
            np.zeros(0).__reduce__()[0],
            np.float64(0).__reduce__()[0],
            *(type(np.dtype(kind)) for kind in ('float64', 'float32', 'int64', 'bool')),
        ]
    )


allow_checkpoints()
