"""What all runtimes have in common."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Session(NamedTuple):
    """An exported network in its runtime.

    Attributes:
        run: From images (B, 3, H, W), float32, to the outputs by their names, B in front.
        batch: B, if the network takes this number of images only; None if any.
    """

    run: Callable[[np.ndarray], dict[str, np.ndarray]]
    batch: int | None
