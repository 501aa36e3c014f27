"""Sessions of ONNX Runtime."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime


def create_session(
    model: str | Path | bytes, threads: int | None = None
) -> 'onnxruntime.InferenceSession':
    """Loads an exported model into ONNX Runtime, on the CPU.

    Args:
        model: The file, or what it holds.
        threads: Threads of the session, which wait without turning round; by default as many as
            ONNX Runtime chooses.

    Returns:
        The session.
    """
    # An extra of the package.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
        # Threads that turn round would slow down whoever runs next.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=['CPUExecutionProvider'])
