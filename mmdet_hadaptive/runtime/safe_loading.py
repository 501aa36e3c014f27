"""Lets torch's safe loader read the checkpoints that MMEngine writes.

Since torch 2.6 ``torch.load`` reads plain data only. MMEngine's checkpoints hold its
``HistoryBuffer`` (the logged losses), NumPy numbers and arrays, and names of the buffer's
statistics. Allowing exactly these keeps everything else in a checkpoint refused.
"""

from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_NUMPY_CORE = getattr(np, '_core', None) or np.core
_STATISTICS = ('min', 'max', 'current', 'mean')


def _statistics_method(owner: Any, name: str) -> Callable[..., Any]:
    """Stands in for ``getattr``, by which pickle names the methods of ``HistoryBuffer``.

    The true ``getattr`` would let a checkpoint reach anything from anything.
    """
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise UnpicklingError(f'refused to look up {name!r} of {owner!r} for a checkpoint')
    return getattr(owner, name)


# torch before 2.6 neither has this function nor needs it.
if hasattr(torch.serialization, 'add_safe_globals'):
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            (_statistics_method, 'builtins.getattr'),
            np.ndarray,
            np.dtype,
            _NUMPY_CORE.multiarray._reconstruct,
            _NUMPY_CORE.multiarray.scalar,
            *(type(np.dtype(kind)) for kind in ('float64', 'float32', 'int64', 'bool')),
        ]
    )
