"""Lets torch's safe loader read the checkpoints that MMEngine writes.

Since torch 2.6 ``torch.load`` reads plain data only. MMEngine's checkpoints hold its
``HistoryBuffer`` (the logged losses) and NumPy numbers and arrays. Allowing exactly these keeps
everything else in a checkpoint refused.
"""

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_NUMPY_CORE = getattr(np, '_core', None) or np.core

if hasattr(torch.serialization, 'add_safe_globals'):
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            np.ndarray,
            np.dtype,
            _NUMPY_CORE.multiarray._reconstruct,
            _NUMPY_CORE.multiarray.scalar,
            *(type(np.dtype(kind)) for kind in ('float64', 'float32', 'int64', 'bool')),
        ]
    )
