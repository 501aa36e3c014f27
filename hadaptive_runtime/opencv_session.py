"""Runs ONNX files in OpenCV's dnn module."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .session import Session


def open_session(file: Path, metadata: Mapping[str, Any], threads: int | None) -> Session:
    """Loads a model into OpenCV, on the CPU.

    Args:
        file: One of the model's files.
        metadata: The metadata that lie beside the file.
        threads: The number of threads of all of OpenCV. None leaves it to OpenCV.

    Returns:
        The session.
    """
    net = cv2.dnn.readNetFromONNX(str(file.with_suffix('.onnx')))
    if threads:
        cv2.setNumThreads(threads)
    names = net.getUnconnectedOutLayersNames()

    def run(inputs: np.ndarray) -> dict[str, np.ndarray]:
        net.setInput(inputs)
        return dict(zip(names, net.forward(names), strict=True))

    return Session(run, metadata['batch'])
