"""Runs ONNX files in ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnxruntime

from .errors import ExportError, describe_error
from .session import Session


def create_session(
    model: str | Path | bytes, threads: int | None = None
) -> onnxruntime.InferenceSession:
    """Loads a model into ONNX Runtime, on the CPU.

    Args:
        model: An ONNX file, or its content.
        threads: The number of threads for one operation. None uses all cores.

    Returns:
        The session.

    Raises:
        ExportError: If ONNX Runtime cannot read or refuses the model.
    """
    is_content = isinstance(model, bytes)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    # Threads that spin while they wait would slow down data loaders, and other models that are
    # timed in turn with this one.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    try:
        return onnxruntime.InferenceSession(
            model if is_content else str(model), options, providers=['CPUExecutionProvider']
        )
    except Exception as error:  # its exceptions have no base class of their own
        name = 'the model' if is_content else model
        raise ExportError(f'ONNX Runtime cannot load {name} ({describe_error(error)})') from error


def open_onnx(session: onnxruntime.InferenceSession) -> Session:
    """An ONNX Runtime session with the interface of all formats."""
    (images,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    # Converters to half precision may change the types of inputs and outputs as well.
    is_half = images.type == 'tensor(float16)'

    def run(inputs: np.ndarray) -> dict[str, np.ndarray]:
        inputs = inputs.astype(np.float16) if is_half else inputs
        outputs = session.run(names, {images.name: inputs})
        return {
            name: output.astype(np.float32) if output.dtype == np.float16 else output
            for name, output in zip(names, outputs, strict=True)
        }

    batch = images.shape[0]
    return Session(run, batch if isinstance(batch, int) else None)
