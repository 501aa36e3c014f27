"""Writes networks in the formats of other runtimes.

All functions take the network, a batch of inputs, the file, the metadata and the conversion.
"""

import subprocess
import warnings
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor

from hadaptive_runtime import ExportError
from hadaptive_runtime.errors import describe_error
from hadaptive_runtime.model_file import encode_sidecar

from .conversion import Conversion, convert_to_onnx
from .model_file import encode_model
from .network import ExportNetwork
from .onnx_nms import append_nms
from .portable import make_portable


def write_onnx(
    network: ExportNetwork,
    inputs: Tensor,
    file: Path,
    metadata: Mapping[str, Any],
    conversion: Conversion,
) -> None:
    """Writes an ONNX file with its metadata inside."""
    model = _convert(network, inputs, metadata, conversion)
    file.write_bytes(encode_model(model, metadata))


def write_openvino(
    network: ExportNetwork,
    inputs: Tensor,
    file: Path,
    metadata: Mapping[str, Any],
    conversion: Conversion,
) -> None:
    """Writes .xml and .bin with float32 weights, from ONNX."""
    openvino = import_package('openvino')
    model = _convert(network, inputs, metadata, conversion)
    read = openvino.Core().read_model(model.SerializeToString())
    openvino.save_model(read, file, compress_to_fp16=False)
    write_sidecar(file, ('.xml', '.bin'), 'openvino', metadata, conversion.batch)


def write_ncnn(
    network: ExportNetwork,
    inputs: Tensor,
    file: Path,
    metadata: Mapping[str, Any],
    conversion: Conversion,
) -> None:
    """Writes .param and .bin with float32 weights, from TorchScript by pnnx."""
    pnnx = import_package('pnnx')
    shapes, traced = _trace(_portable(network), inputs)
    with TemporaryDirectory() as folder:
        traced.save(f'{folder}/net.pt')
        shape = ','.join(map(str, inputs.shape))
        command = [pnnx.EXEC_PATH, 'net.pt', f'inputshape=[{shape}]', 'fp16=0']
        result = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        made = {suffix: Path(folder, f'net.ncnn{suffix}') for suffix in ('.param', '.bin')}
        if result.returncode or not all(path.is_file() for path in made.values()):
            raise ExportError(
                f'pnnx fails (exit status {result.returncode}): {result.stdout.strip()[-200:]}. '
                'Use another --format'
            )
        for suffix, path in made.items():
            file.with_suffix(suffix).write_bytes(path.read_bytes())
    metadata = {**metadata, 'outputs': dict(zip(network.output_names, shapes, strict=True))}
    write_sidecar(file, tuple(made), 'ncnn', metadata)


def write_opencv(
    network: ExportNetwork,
    inputs: Tensor,
    file: Path,
    metadata: Mapping[str, Any],
    conversion: Conversion,
) -> None:
    """Writes an ONNX file with operators that OpenCV 4 knows."""
    model = _convert(_portable(network), inputs, metadata, conversion)
    # OpenCV does not accept constants everywhere.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(file)
    content = model.SerializeToString()
    onnxruntime.InferenceSession(content, options, providers=['CPUExecutionProvider'])
    write_sidecar(file, ('.onnx',), 'opencv', metadata)


def write_executorch(
    network: ExportNetwork,
    inputs: Tensor,
    file: Path,
    metadata: Mapping[str, Any],
    conversion: Conversion,
) -> None:
    """Writes .pte for the CPU. XNNPACK computes the operators that it knows."""
    exir = import_package('executorch.exir')
    xnnpack = import_package('executorch.backends.xnnpack.partition.xnnpack_partitioner')
    # ExecuTorch refuses channels_last, and strides of zero, which NumPy may give to a batch of one.
    network = network.to(memory_format=torch.contiguous_format)
    inputs = inputs.clone(memory_format=torch.contiguous_format)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            program = torch.export.export(network, (inputs,))
            edge = exir.to_edge_transform_and_lower(
                program, partitioner=[xnnpack.XnnpackPartitioner()]
            )
            content = edge.to_executorch().buffer
        except Exception as error:  # of many kinds
            raise ExportError(
                f'ExecuTorch cannot convert the detector ({describe_error(error)}): use another '
                '--format'
            ) from error
    file.write_bytes(content)
    metadata = {**metadata, 'outputs': network.output_names}
    write_sidecar(file, ('.pte',), 'executorch', metadata)


def write_litert(
    network: ExportNetwork,
    inputs: Tensor,
    file: Path,
    metadata: Mapping[str, Any],
    conversion: Conversion,
) -> None:
    """Writes .tflite."""
    litert = import_package('litert_torch', 'pip install --no-deps -r requirements-litert.txt')
    litert.config.show_progress = False
    network = network.to(memory_format=torch.contiguous_format)
    inputs = inputs.clone(memory_format=torch.contiguous_format)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            content = litert.convert(network, (inputs,)).model_content()
        except Exception as error:  # of many kinds
            raise ExportError(
                f'LiteRT cannot convert the detector ({describe_error(error)}): use another '
                '--format'
            ) from error
    file.write_bytes(content)
    write_sidecar(file, ('.tflite',), 'litert', {**metadata, 'outputs': network.output_names})


def _convert(
    network: ExportNetwork, inputs: Tensor, metadata: Mapping[str, Any], conversion: Conversion
) -> onnx.ModelProto:
    model = convert_to_onnx(
        network, inputs, conversion.batch is None, conversion.exporter, conversion.opset
    )
    if network.select:
        append_nms(model, metadata)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f'ONNX has not all operators of the detector in opset {conversion.opset} '
            f'({describe_error(error)}): use another --opset, such as 18'
        ) from error
    return model


def _portable(network: ExportNetwork) -> ExportNetwork:
    try:
        return make_portable(network)
    except ValueError as error:
        raise ExportError(f'{error}; use --format onnx') from error


def _trace(
    network: ExportNetwork, inputs: Tensor
) -> tuple[list[tuple[int, ...]], torch.jit.ScriptModule]:
    """Returns the shapes of the outputs, and the network in TorchScript."""
    network = network.to(memory_format=torch.contiguous_format)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        shapes = [tuple(output.shape) for output in network(inputs)]
        return shapes, torch.jit.trace(network, inputs, check_trace=False)


def import_package(module: str, remedy: str | None = None) -> ModuleType:
    """Imports a module that a format needs.

    Args:
        module: The dotted name of the module.
        remedy: How to install it, if not by the name of its package.

    Returns:
        The module.

    Raises:
        ExportError: If its package is not installed, or cannot be imported.
    """
    package = module.partition('.')[0]
    if find_spec(package) is None:
        raise ExportError(f'{package} is not installed: {remedy or f"pip install {package}"}')
    try:
        return import_module(module)
    except Exception as error:  # libraries raise errors of any type
        raise ExportError(
            f'{package} is installed but cannot be imported ({describe_error(error)}): install it '
            f'again with {remedy or f"pip install --force-reinstall {package}"}, or use another '
            '--format'
        ) from error


def write_sidecar(
    file: Path,
    suffixes: tuple[str, ...],
    format: str,
    metadata: Mapping[str, Any],
    batch: int | None = 1,
) -> None:
    """Writes the metadata beside a model.

    Args:
        file: One of the model's files.
        suffixes: The suffixes of all the files.
        format: The name of the format.
        metadata: The other metadata.
        batch: The batch size. None accepts any.
    """
    content = encode_sidecar({'format': format, 'batch': batch, **metadata}, suffixes)
    file.with_suffix('.json').write_text(content)
