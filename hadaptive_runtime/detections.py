"""What a detector finds in an image."""

from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from .errors import ExportError

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True)
class Detections:
    """The objects of one image.

    Attributes:
        boxes: (n, 4), float32: (x1, y1, x2, y2) in pixels.
        scores: (n,), float32, the highest first.
        labels: (n,), int64: indices into the detector's ``classes``.
        class_names: The name of each object's class.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    class_names: list[str]

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float) -> 'Detections':
        """Returns the objects whose scores are at least ``threshold``."""
        kept = self.scores >= threshold
        names = [name for name, keep in zip(self.class_names, kept, strict=True) if keep]
        return Detections(self.boxes[kept], self.scores[kept], self.labels[kept], names)

    def to_supervision(self) -> 'supervision.Detections':
        """Returns the objects as ``supervision.Detections``, with the names in ``class_name``.

        Raises:
            ExportError: If supervision is not installed.
        """
        return import_supervision().Detections(
            xyxy=self.boxes.reshape(-1, 4),
            confidence=self.scores,
            class_id=self.labels,
            data={'class_name': np.array(self.class_names, str)},
        )


def import_supervision() -> ModuleType:
    """Imports supervision, which is installed only where it is used.

    Raises:
        ExportError: If it is not installed, or cannot be imported.
    """
    try:
        import supervision
    except ImportError as error:
        raise ExportError(
            f'supervision cannot be imported ({error}): pip install supervision'
        ) from error
    return supervision
