"""An exported detector of any format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .detections import Detections
from .errors import ExportError
from .images import read_image
from .preprocessing import Preprocessing
from .session import Session
from .suppression import choose_detections


class Detector:
    """An exported detector in its runtime. :func:`load_exported` makes it.

    Args:
        session: The network.
        metadata: What the file says about the network.

    Attributes:
        format: The format of the file, such as 'onnx'.
        classes: The names of the classes.
        preprocessing: How images are prepared.
        session: The network.
        score_threshold: Only objects with higher scores are found.
    """

    def __init__(self, session: Session, metadata: Mapping[str, Any]) -> None:
        self.session = session
        self._metadata = metadata
        self.format: str = metadata['format']
        self.classes: list[str] = list(metadata['classes'])
        self.score_threshold: float = metadata.get('score_threshold', 0.0)
        self.preprocessing = Preprocessing.from_metadata(metadata)

    def __call__(self, image: np.ndarray | str | Path) -> Detections:
        """Detects objects.

        Args:
            image: A file, or (H, W, 3), uint8, BGR, as cv2.imread gives it.

        Returns:
            What is found, in pixels of the image.

        Raises:
            ExportError: If the file is not a complete image with 8 bits per channel, or if the
                array has another shape or dtype.
            OSError: If the file cannot be read.
        """
        if not isinstance(image, np.ndarray):
            image = read_image(Path(image))
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ExportError(
                f'an image must have the shape (H, W, 3) and the dtype uint8, BGR, got '
                f'{image.shape}, {image.dtype}: cv2.imread(file) gives it so'
            )
        inputs, factors = self.preprocessing.prepare(image)
        (found,) = self.detect(inputs[None], factors[None])
        limits = np.float32([image.shape[1], image.shape[0]] * 2)
        boxes = np.clip(found.boxes / np.tile(factors, 2), 0, limits)
        return Detections(boxes, found.scores, found.labels, found.class_names)

    def detect(self, inputs: np.ndarray, factors: np.ndarray | None = None) -> list[Detections]:
        """Detects objects in images that were already preprocessed.

        Args:
            inputs: (B, 3, H, W), float32, as :class:`Preprocessing` makes it.
            factors: (B, 2), by which width and height of each image were resized: a smallest size
                of boxes counts pixels of the image. None if the images were not resized.

        Returns:
            For each image what is found, in pixels of the input, not clipped to the image.

        Raises:
            ExportError: If the inputs have another size than the network.
        """
        size = (3, *self.preprocessing.input_size)
        if inputs.ndim != 4 or inputs.shape[1:] != size:
            raise ExportError(
                f'inputs must have the shape (B, {", ".join(map(str, size))}), got {inputs.shape}: '
                'prepare images with preprocessing.prepare, or export with another --size'
            )
        if factors is None:
            factors = np.ones((len(inputs), 2), np.float32)
        step = self.session.batch or max(len(inputs), 1)
        detections = []
        for start in range(0, len(inputs), step):
            chunk = inputs[start : start + step]
            # A fixed batch is filled up with grey.
            padding = ((0, step - len(chunk)), (0, 0), (0, 0), (0, 0))
            outputs = self.session.run(np.pad(chunk, padding))
            detections += [
                self._choose({name: out[i] for name, out in outputs.items()}, factors[start + i])
                for i in range(len(chunk))
            ]
        return detections

    def _choose(self, outputs: Mapping[str, np.ndarray], factors: np.ndarray) -> Detections:
        """Returns the detections of one image."""
        boxes, scores = outputs['boxes'], outputs['scores']
        if 'labels' in outputs:
            # Every image has the same number of rows; those without a detection have the label -1.
            found = outputs['labels'] >= 0
            boxes, scores, labels = boxes[found], scores[found], outputs['labels'][found]
        else:
            boxes, scores, labels = choose_detections(
                boxes, scores, outputs.get('factors'), self._metadata, factors
            )
        return Detections(boxes, scores, labels, [self.classes[i] for i in labels])
