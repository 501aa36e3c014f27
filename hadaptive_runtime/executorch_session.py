"""Runs ExecuTorch's files. Its Python interface needs torch, unlike the others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch.runtime import Runtime

from .session import Session


def open_session(file: Path, metadata: Mapping[str, Any], threads: int | None) -> Session:
    """Loads a model into ExecuTorch, on the CPU.

    Args:
        file: One of the model's files.
        metadata: The metadata that lie beside the file.
        threads: Has no effect. ExecuTorch's Python interface uses all cores.

    Returns:
        The session.
    """
    program = Runtime.get().load_program(file.with_suffix('.pte'))
    method = program.load_method('forward')
    names = list(metadata['outputs'])

    def run(inputs: np.ndarray) -> dict[str, np.ndarray]:
        # A copy, because NumPy may report any stride for a batch of one.
        outputs = method.execute([torch.from_numpy(inputs.copy())])
        return {name: output.numpy().copy() for name, output in zip(names, outputs, strict=True)}

    return Session(run, metadata['batch'])
