"""Hadaptive-Net for MMDetection.

Importing this package registers its modules with MMDetection; name it in a config's
``custom_imports``. Where MMDetection is not installed, the backbone is registered with MMEngine's
root registry; where there is no MMEngine or mmcv either, ``ops`` and ``layers`` are usable with
torch alone.
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
