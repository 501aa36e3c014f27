"""Detectors as ONNX files: written, checked against PyTorch, quantised, and evaluated."""

from importlib.util import find_spec

_missing = [name for name in ('onnx', 'onnxruntime', 'onnxscript') if find_spec(name) is None]
if _missing:
    raise ImportError(
        f'mmdet_hadaptive.export needs {", ".join(_missing)}: pip install {" ".join(_missing)}'
    )

from .conversion import EXPORTERS  # noqa: E402
from .errors import ExportError  # noqa: E402
from .evaluation import OnnxDetector, evaluate_onnx  # noqa: E402
from .export import ExportReport, export_onnx  # noqa: E402
from .model_file import encode_model  # noqa: E402
from .network import ExportNetwork  # noqa: E402
from .preprocessing import Preprocessing  # noqa: E402
from .quantize import QuantizationReport, quantize_onnx  # noqa: E402
from .support import MODES  # noqa: E402

__all__ = [
    'EXPORTERS',
    'MODES',
    'ExportError',
    'ExportNetwork',
    'ExportReport',
    'OnnxDetector',
    'Preprocessing',
    'QuantizationReport',
    'encode_model',
    'evaluate_onnx',
    'export_onnx',
    'quantize_onnx',
]
