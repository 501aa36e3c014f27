"""What MMDetection lacks for light detectors."""

from .retina_lite_head import RetinaLiteHead
from .ssdlite_head import SSDLiteHead

__all__ = ['RetinaLiteHead', 'SSDLiteHead']
