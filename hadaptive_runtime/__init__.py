"""Runs detectors that mmdet_hadaptive exported. It needs NumPy, OpenCV and the format's runtime.

It needs neither torch nor MMDetection. You can copy this folder into another program:

    from hadaptive_runtime import load_exported

    detector = load_exported('bccd.onnx')
    found = detector('image.jpg')
    print(found.boxes, found.scores, found.class_names)

On the command line: python -m hadaptive_runtime FILE IMAGE
"""

from .detections import Detections
from .detector import Detector
from .errors import ExportError
from .loading import load_exported
from .preprocessing import Preprocessing

__all__ = ['Detections', 'Detector', 'ExportError', 'Preprocessing', 'load_exported']
