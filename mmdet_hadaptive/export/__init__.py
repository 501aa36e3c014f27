"""Exports detectors to other runtimes: compared with PyTorch, quantised, and evaluated."""

from importlib import import_module
from importlib.util import find_spec

from hadaptive_runtime import ExportError
from hadaptive_runtime.errors import describe_error

_PACKAGES = ('onnx', 'onnxruntime', 'onnxscript')
_missing = [name for name in _PACKAGES if find_spec(name) is None]
if _missing:
    raise ImportError(
        f'mmdet_hadaptive.export needs {", ".join(_missing)}: pip install {" ".join(_missing)}'
    )
for _name in _PACKAGES:
    try:
        import_module(_name)
    except Exception as error:  # libraries raise errors of any type
        raise ImportError(
            f'{_name} is installed but cannot be imported ({describe_error(error)}): install it '
            f'again with pip install --force-reinstall {_name}'
        ) from error

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
