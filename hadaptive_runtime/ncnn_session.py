"""Runs ncnn's files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ncnn
import numpy as np

from .session import Session


def open_session(file: Path, metadata: Mapping[str, Any], threads: int | None) -> Session:
    """Loads a model into ncnn, on the CPU.

    Args:
        file: One of the model's files.
        metadata: The metadata that lie beside the file.
        threads: The number of threads. None uses all cores.

    Returns:
        The session.

    Raises:
        ValueError: If ncnn refuses a file. ncnn prints the reason to the standard error.
    """
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    if threads:
        net.opt.num_threads = threads
    # The comparison with PyTorch was in float32.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    for load, suffix in ((net.load_param, '.param'), (net.load_model, '.bin')):
        if load(str(file.with_suffix(suffix))):
            raise ValueError(f'{suffix} is refused')
    outputs: Mapping[str, list[int]] = metadata['outputs']

    def run(inputs: np.ndarray) -> dict[str, np.ndarray]:
        (image,) = inputs
        extractor = net.create_extractor()
        # Without a copy, ncnn would read the array's memory after it is freed.
        extractor.input('in0', ncnn.Mat(np.ascontiguousarray(image)).clone())
        found = {}
        for number, (name, shape) in enumerate(outputs.items()):
            _, mat = extractor.extract(f'out{number}')
            found[name] = np.array(mat).reshape(shape)
        return found

    return Session(run, metadata['batch'])
