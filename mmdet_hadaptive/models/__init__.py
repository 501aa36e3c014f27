"""The backbone Hadaptive-Net, and heads for light detectors that MMDetection lacks."""

from importlib.util import find_spec

from .adaptive_blocks import adaptive_bottleneck, backbone_with_ach
from .architectures import ARCHITECTURES, PUBLISHED_ARCHITECTURES
from .hadaptive_net import HadaptiveNet

__all__ = [
    'ARCHITECTURES',
    'PUBLISHED_ARCHITECTURES',
    'HadaptiveNet',
    'adaptive_bottleneck',
    'backbone_with_ach',
]

if find_spec('mmdet') is not None:
    from .retina_lite_head import RetinaLiteHead
    from .ssd_head import PatchedSSDHead

    __all__ += ['PatchedSSDHead', 'RetinaLiteHead']
