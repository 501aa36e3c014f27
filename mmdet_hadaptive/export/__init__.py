"""Detectors as files for other runtimes: checked against PyTorch, quantised, and evaluated."""

from importlib.util import find_spec

_missing = [name for name in ('onnx', 'onnxruntime', 'onnxscript') if find_spec(name) is None]
if _missing:
    raise ImportError(
        f'mmdet_hadaptive.export needs {", ".join(_missing)}: pip install {" ".join(_missing)}'
    )

from hadaptive_runtime import ExportError  # noqa: E402

from .benchmark_exported import ExportedCosts, benchmark_exported  # noqa: E402
from .conversion import EXPORTERS  # noqa: E402
from .evaluation import ExportedDetector, evaluate_exported  # noqa: E402
from .export import ExportReport, export_detector  # noqa: E402
from .formats import FORMATS  # noqa: E402
from .fuse import fuse_for_inference  # noqa: E402
from .model_file import encode_model  # noqa: E402
from .network import ExportNetwork  # noqa: E402
from .preprocessing import read_preprocessing  # noqa: E402
from .prune import PruningReport, prune_products  # noqa: E402
from .quantization import QuantizationReport  # noqa: E402
from .support import OUTPUTS  # noqa: E402

__all__ = [
    'EXPORTERS',
    'FORMATS',
    'OUTPUTS',
    'ExportError',
    'ExportNetwork',
    'ExportReport',
    'ExportedCosts',
    'ExportedDetector',
    'PruningReport',
    'QuantizationReport',
    'benchmark_exported',
    'encode_model',
    'evaluate_exported',
    'export_detector',
    'fuse_for_inference',
    'prune_products',
    'read_preprocessing',
]
