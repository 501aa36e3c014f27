"""Loads exported detectors."""

import os
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from .detector import Detector
from .errors import ExportError, describe_error
from .model_file import REMEDY, decode_metadata, has_metadata_inside, read_sidecar
from .session import Session

# For each format: the runtime's name, its module, and its name for pip.
_RUNTIMES = {
    'onnx': ('ONNX Runtime', 'onnxruntime', 'onnxruntime'),
    'openvino': ('OpenVINO', 'openvino', 'openvino'),
    'ncnn': ('ncnn', 'ncnn', 'ncnn'),
    'opencv': ('OpenCV', 'cv2', 'opencv-python'),
    'executorch': ('ExecuTorch', 'executorch', 'executorch'),
    'litert': ('LiteRT', 'ai_edge_litert', 'ai-edge-litert'),
}


def load_exported(file: str | Path, threads: int | None = None) -> Detector:
    """Loads a file of any format that mmdet_hadaptive exported.

    Args:
        file: The model, as tools/export.py names it. If its format has the metadata in a file of
            its own, that file lies beside it.
        threads: The number of threads. The default is OMP_NUM_THREADS, if set.

    Returns:
        The detector.

    Raises:
        ExportError: If the file is damaged, comes from another exporter or has other outputs than
            detections, or if its runtime is not installed or refuses it.
        OSError: If the file cannot be read.
    """
    path = Path(file)
    if path.is_dir():
        raise ExportError(f'{path} is a folder: name the model in it, such as {path}/model.onnx')
    threads = threads or _default_threads()
    if has_metadata_inside(path):
        return _load_onnx(path, threads)
    metadata = read_sidecar(path)
    format = metadata.get('format')
    module = _import_runtime(path, format)
    try:
        session = module.open_session(path, metadata, threads)
    except Exception as error:  # each runtime has its own
        name = _RUNTIMES[format][0]
        raise ExportError(
            f'{path}: {name} cannot load it ({describe_error(error)}): {REMEDY}, or update {name}'
        ) from error
    return _make_detector(path, session, metadata)


def _default_threads() -> int | None:
    # OpenMP takes a list, one number for each level.
    text = os.environ.get('OMP_NUM_THREADS', '').split(',')[0].strip()
    if text and not text.isdecimal():
        raise ExportError(f'OMP_NUM_THREADS must be a number, got {text!r}: correct or unset it')
    return int(text or 0) or None


def _load_onnx(path: Path, threads: int | None) -> Detector:
    # If it is missing, this error names it.
    path.stat()
    module = _import_runtime(path, 'onnx')
    try:
        session = module.create_session(path, threads)
    except ExportError as error:
        raise ExportError(f'{error}: {REMEDY}, or update ONNX Runtime') from error
    try:
        metadata = decode_metadata(session.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError as error:
        raise ExportError(f'{path} is damaged ({describe_error(error)}): {REMEDY}') from error
    if 'classes' not in metadata:
        sidecar = path.with_suffix('.json').name
        raise ExportError(
            f'{path} has neither metadata inside nor its metadata, {sidecar}, beside it: {REMEDY}'
        )
    if metadata.get('mode', 'nms') != 'nms':
        raise ExportError(
            f'{path} has no detections as outputs, but {metadata["mode"]}: export it with '
            '--outputs detections'
        )
    return _make_detector(path, module.open_onnx(session), {'format': 'onnx', **metadata})


def _make_detector(path: Path, session: Session, metadata: Mapping[str, Any]) -> Detector:
    try:
        return Detector(session, metadata)
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(
            f'{path} is damaged, or was not written by this package: its metadata lack or spoil '
            f'what a detector needs ({describe_error(error)}): {REMEDY}'
        ) from error


def _import_runtime(path: Path, format: str) -> ModuleType:
    if format not in _RUNTIMES:
        raise ExportError(
            f'{path} is of the format {format!r}, which this version does not know: update it; it '
            f'knows {", ".join(_RUNTIMES)}'
        )
    name, module, package = _RUNTIMES[format]
    if find_spec(module) is None:
        raise ExportError(f'{path} runs in {name}, which is not installed: pip install {package}')
    try:
        return import_module(f'{__package__}.{format}_session')
    except Exception as error:  # libraries raise errors of any type
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        raise ExportError(
            f'{path} runs in {name}, which is installed but cannot be imported '
            f'({describe_error(error)}): pip install {missing or f"--force-reinstall {package}"}'
        ) from error
