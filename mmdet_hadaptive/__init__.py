"""Hadaptive-Net for MMDetection.

Importing this package registers its modules with MMDetection; name it in a config's
``custom_imports``. Where MMDetection is not installed at all, ``ops`` and ``layers`` are
usable with torch alone.
"""

from importlib.util import find_spec

__version__ = '0.1.0'

if find_spec('mmdet') is not None:
    from .stack import check_stack

    check_stack()

    from mmdet.registry import MODELS

    from . import checkpoint, datasets, heads, hooks  # noqa: F401
    from .backbones import HadaptiveNet

    # Registered here, so that the backbone itself does not need MMDetection.
    MODELS.register_module(module=HadaptiveNet)
