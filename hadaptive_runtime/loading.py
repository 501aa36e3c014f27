"""From files to detectors."""

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from .detector import Detector
from .errors import ExportError, first_line
from .model_file import decode_metadata, has_metadata_inside, read_onnx, read_sidecar

# Per format, the name of the runtime, the module that is imported, and what pip calls it.
_RUNTIMES = {
    'onnx': ('ONNX Runtime', 'onnxruntime', 'onnxruntime'),
    'openvino': ('OpenVINO', 'openvino', 'openvino'),
    'ncnn': ('ncnn', 'ncnn', 'ncnn'),
    'opencv': ('OpenCV', 'cv2', 'opencv-python'),
    'executorch': ('ExecuTorch', 'executorch', 'executorch'),
    'litert': ('LiteRT', 'ai_edge_litert', 'ai-edge-litert'),
}


def load_exported(file: str | Path, threads: int | None = None) -> Detector:
    """Loads a file that mmdet_hadaptive exported, whatever its format.

    Args:
        file: The model, as tools/export.py names it; of formats that have metadata beside the
            model, these are there as well.
        threads: How many compute; by default OMP_NUM_THREADS, or the runtime's own choice.

    Returns:
        The detector.

    Raises:
        ExportError: If the file is damaged, of another exporter, gives something else than
            detections, or its runtime is not installed or refuses it.
        OSError: If the file cannot be read.
    """
    path = Path(file)
    if path.is_dir():
        raise ExportError(f'{path} is a folder: name the model in it, such as {path}/model.onnx')
    threads = threads or _default_threads()
    if has_metadata_inside(path):
        return _load_onnx(path, threads)
    metadata = read_sidecar(path)
    format = metadata['format']
    _check_runtime(path, format)
    module = import_module(f'{__package__}.{format}_session')
    try:
        session = module.open_session(path, metadata, threads)
    except Exception as error:  # each runtime has its own
        name = _RUNTIMES[format][0]
        raise ExportError(
            f'{path}: {name} cannot load it ({first_line(error)}): update {name}, or export the '
            'model for the version that is installed'
        ) from error
    return Detector(session, metadata)


def _default_threads() -> int | None:
    # OpenMP takes a list, one number for each level.
    text = os.environ.get('OMP_NUM_THREADS', '').split(',')[0].strip()
    if text and not text.isdecimal():
        raise ExportError(f'OMP_NUM_THREADS must be a number, got {text!r}: correct or unset it')
    return int(text or 0) or None


def _load_onnx(path: Path, threads: int | None) -> Detector:
    content = read_onnx(path)
    _check_runtime(path, 'onnx')
    from .onnx_session import create_session, open_onnx

    try:
        session = create_session(content, threads)
    except ExportError as error:
        raise ExportError(f'{path}: {error}') from error
    metadata = decode_metadata(session.get_modelmeta().custom_metadata_map)
    if metadata['mode'] != 'nms':
        raise ExportError(
            f'{path} has the mode {metadata["mode"]!r} in its metadata: export it with mode '
            "'nms', whose outputs are detections"
        )
    return Detector(open_onnx(session), {'format': 'onnx', **metadata})


def _check_runtime(path: Path, format: str) -> None:
    if format not in _RUNTIMES:
        raise ExportError(
            f'{path} is of the format {format!r}, which this version does not know: update it; it '
            f'knows {", ".join(_RUNTIMES)}'
        )
    name, module, package = _RUNTIMES[format]
    if find_spec(module) is None:
        raise ExportError(f'{path} runs in {name}, which is not installed: pip install {package}')
