"""Runs OpenVINO's files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from .session import Session

# Each Core replaces the process's stack for signal handlers. A deleted Core puts back the stack
# that it found. That may be the freed stack of another Core: the next signal would end the process.
_CORE = openvino.Core()


def open_session(file: Path, metadata: Mapping[str, Any], threads: int | None) -> Session:
    """Loads a model into OpenVINO, on the CPU.

    Args:
        file: One of the model's files.
        metadata: The metadata that lie beside the file.
        threads: The number of threads. None leaves it to OpenVINO.

    Returns:
        The session.
    """
    # On some processors OpenVINO would compute in bfloat16, with two to three correct digits.
    options = {'INFERENCE_PRECISION_HINT': 'f32', 'PERFORMANCE_HINT': 'LATENCY'}
    if threads:
        options['INFERENCE_NUM_THREADS'] = threads
    model = _CORE.compile_model(str(file.with_suffix('.xml')), 'CPU', options)
    names = [output.get_any_name() for output in model.outputs]

    def run(inputs: np.ndarray) -> dict[str, np.ndarray]:
        outputs = model(inputs)
        return {name: outputs[name] for name in names}

    return Session(run, metadata['batch'])
