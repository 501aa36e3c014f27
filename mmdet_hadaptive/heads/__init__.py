"""What MMDetection lacks for SSDLite."""

from .ssdlite_head import SSDLiteHead

__all__ = ['SSDLiteHead']
