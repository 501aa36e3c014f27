"""The interface of all runtimes."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Session(NamedTuple):
    """An exported network in its runtime.

    Attributes:
        run: Takes images (B, 3, H, W), float32. Returns the outputs by their names, (B, ...).
        batch: B, if it is fixed. None if the network takes any number of images.
    """

    run: Callable[[np.ndarray], dict[str, np.ndarray]]
    batch: int | None
