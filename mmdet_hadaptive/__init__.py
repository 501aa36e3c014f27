"""Hadaptive-Net for MMDetection.

The import of this package registers its modules with MMDetection. Name it in a config's
``custom_imports``. Without MMDetection, the backbone is registered with MMEngine's root registry.
Without MMEngine or mmcv, ``ops`` and ``layers`` work with torch alone.
"""

from importlib.util import find_spec

__version__ = '0.2.0'

if find_spec('mmdet') is not None:
    from .utils.installation import check_installation

    check_installation()

    from . import datasets, engine, models, registry  # noqa: F401
    from .utils import safe_loading  # noqa: F401
elif find_spec('mmengine') is not None and find_spec('mmcv') is not None:
    from . import registry  # noqa: F401
