"""The one way in which this package runs ONNX models.

ONNX Runtime is an extra: import this module only where models are run.
"""

from pathlib import Path

import onnxruntime
import torch

from .errors import describe_error


def create_session(
    model: str | Path | bytes, threads: int | None = None
) -> onnxruntime.InferenceSession:
    """Loads a model into ONNX Runtime, on the CPU.

    Args:
        model: An ONNX file, or the content of one.
        threads: How many may compute one operation; None for as many as torch uses.

    Returns:
        The session.

    Raises:
        ValueError: If ONNX Runtime cannot read or refuses the model.
    """
    is_content = isinstance(model, bytes)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    # Threads that spin while they wait would slow down whoever has the next turn: data loaders,
    # and whatever is timed beside the model.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    try:
        return onnxruntime.InferenceSession(
            model if is_content else str(model), options, providers=['CPUExecutionProvider']
        )
    except Exception as error:  # its exceptions have no base class of their own
        name = 'the model' if is_content else model
        raise ValueError(f'ONNX Runtime cannot load {name}: {describe_error(error)}') from error
