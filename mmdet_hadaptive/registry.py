"""What makes this package a library of OpenMMLab's: its name, registries, backbones and weights.

The modules are registered with MMDetection; where it is not installed, the backbones are with
MMEngine's root, in which every other OpenMMLab library looks for what it does not have itself. The
backbones' own module needs neither.
"""

from importlib.util import find_spec

import mmengine.registry as root
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import Registry

from .models import HadaptiveNet, adaptive_bottleneck, backbone_with_ach
from .pretraining.weights import register_scheme

if find_spec('mmdet') is not None:
    import mmdet.registry as home

    _LOCATIONS = [
        f'mmdet.{part}' for part in ('datasets', 'engine', 'evaluation', 'models', 'visualization')
    ]
else:
    home = root
    _LOCATIONS = [f'{__package__}.models']

# MMEngine reads configs named `mmdet_hadaptive::...` of the libraries in this table only. It looks
# for the folder of a distribution's files, which is not where an editable installation has them;
# for what is no distribution, it asks Python where the module is: this one is in the right folder.
MODULE2PACKAGE[__package__] = __name__

# What a config inherits by that name is built in the scope `mmdet_hadaptive`: in these registries,
# which have nothing of their own and pass on what their parents have.
for _name, _registry in vars(root).items():
    if isinstance(_registry, Registry):
        Registry(
            _registry.name,
            parent=getattr(home, _name, _registry),
            scope=__package__,
            locations=_LOCATIONS,
        )

home.MODELS.register_module(module=HadaptiveNet)
home.MODELS.register_module('AdaptiveBottleneck', module=adaptive_bottleneck)
home.MODELS.register_module('BackboneWithACH', module=backbone_with_ach)

register_scheme()
