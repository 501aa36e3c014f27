"""The registry that the backbones go to, and their registration.

That is MMDetection's; where MMDetection is not installed, MMEngine's root, in which every other
OpenMMLab library looks for what it does not have itself. The backbones' own module needs neither.
"""

from importlib.util import find_spec

if find_spec('mmdet') is not None:
    from mmdet.registry import MODELS
else:
    from mmengine.registry import MODELS

from .backbones import HadaptiveNet, adaptive_bottleneck, with_adaptive_bottlenecks

MODELS.register_module(module=HadaptiveNet)
MODELS.register_module('AdaptiveBottleneck', module=adaptive_bottleneck)
MODELS.register_module('WithAdaptiveBottlenecks', module=with_adaptive_bottlenecks)
