"""Hadaptive-Net for MMDetection.

Importing this package registers its modules with MMDetection; name it in a config's
``custom_imports``. Where MMDetection is not installed, the backbone is registered with MMEngine's
root registry; where there is no MMEngine or mmcv either, ``ops`` and ``layers`` are usable with
torch alone.
"""

from importlib.util import find_spec

__version__ = '0.1.0'

if find_spec('mmdet') is not None:
    from .stack import check_stack

    check_stack()

    from mmdet.registry import MODELS

    from . import checkpoint, datasets, heads, hooks  # noqa: F401
elif find_spec('mmengine') is not None and find_spec('mmcv') is not None:
    # The root, in which every other OpenMMLab library looks for what it does not have itself.
    from mmengine.registry import MODELS

if 'MODELS' in globals():
    from .backbones import HadaptiveNet, adaptive_bottleneck, with_adaptive_bottlenecks

    # Registered here, so that the backbone itself does not need MMDetection.
    MODELS.register_module(module=HadaptiveNet)
    MODELS.register_module('AdaptiveBottleneck', module=adaptive_bottleneck)
    MODELS.register_module('WithAdaptiveBottlenecks', module=with_adaptive_bottlenecks)
