"""Runs LiteRT's files. LiteRT was TensorFlow Lite."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from .session import Session


def open_session(file: Path, metadata: Mapping[str, Any], threads: int | None) -> Session:
    """Loads a model into LiteRT, on the CPU.

    Args:
        file: One of the model's files.
        metadata: The metadata that lie beside the file.
        threads: The number of threads. None uses all cores.

    Returns:
        The session.
    """
    interpreter = Interpreter(
        model_path=str(file.with_suffix('.tflite')), num_threads=threads or os.cpu_count()
    )
    network = interpreter.get_signature_runner()
    (images,) = network.get_input_details()
    names = {f'output_{i}': name for i, name in enumerate(metadata['outputs'])}

    def run(inputs: np.ndarray) -> dict[str, np.ndarray]:
        outputs = network(**{images: inputs})
        return {name: outputs[given] for given, name in names.items()}

    return Session(run, metadata['batch'])
