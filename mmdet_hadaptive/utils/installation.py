"""Checks the installed OpenMMLab libraries before they fail with an obscure error."""

import warnings
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from packaging.version import Version

from .. import __version__

# The names of each module's distributions. The last one is the maintained fork.
_DISTRIBUTIONS = {
    'torch': ('torch',),
    'mmengine': ('mmengine', 'mmengine-lite', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'mmcv-lite', 'mmcv-full', 'onedl-mmcv'),
    'mmdet': ('mmdet', 'onedl-mmdetection'),
}
_NEEDED = (
    'torch 2.5 or later, with mmdet 3.2 or 3.3, mmengine 0.10 and mmcv 2.1 built with its ops, '
    'or onedl-mmdetection 3.5 with its own mmengine and mmcv'
)
_INSTALL_MMCV = (
    'pip uninstall -y mmcv mmcv-lite mmcv-full; pip install ninja "setuptools<81" wheel && '
    'MMCV_WITH_OPS=1 pip install --no-build-isolation --no-cache-dir --no-binary mmcv mmcv==2.1.0'
)
_UNKNOWN = 'of unknown version'  # a source folder in sys.path
_INSTALL_SETUPTOOLS = 'pip install "setuptools>=77.0.3,<81"'
_INSTALL_MMDET = 'pip install mmengine==0.10.7 mmdet==3.3.0'


def check_installation() -> None:
    """Checks that MMDetection and its libraries work with this package.

    Raises:
        ImportError: If a library is missing, too old or too new, or if mmcv has no compiled ops.
            The message names the found version, the needed one, and the command that repairs it.
    """
    found = installed_versions()
    try:
        problem, remedy = _problem(found)
    except ImportError as error:
        problem, remedy = f'MMDetection cannot be imported ({error})', _INSTALL_MMDET
    if problem:
        parts = ', '.join(f'{module} {number or "missing"}' for module, number in found.items())
        raise ImportError(
            f'mmdet_hadaptive cannot run on this installation: {problem}.\n'
            f'  found:  {parts}\n'
            f'  needed: {_NEEDED}\n'
            f'  remedy: {remedy}'
        )


def _problem(found: dict[str, str | None]) -> tuple[str, str]:
    """Returns the first problem and the command that repairs it, or two empty strings."""
    number = found['torch']
    if number and number != _UNKNOWN and Version(number) < Version('2.5'):
        # Older versions cannot allow MMEngine's classes in checkpoints.
        return f'torch {number} is too old', f'pip install torch==2.13.0; {_INSTALL_MMCV}'
    number = found['mmdet']
    if number and number != _UNKNOWN and Version(number) < Version('3.2'):
        return f'mmdet {number} is too old', f'{_INSTALL_MMCV} && {_INSTALL_MMDET}'
    if not found['mmengine']:
        return 'mmengine is missing', _INSTALL_MMDET
    if not found['mmcv']:
        return 'mmcv is missing', _INSTALL_MMCV
    try:
        import_module('mmdet')
    except AssertionError as error:  # mmdet checks mmcv and mmengine itself
        remedy = _INSTALL_MMCV if 'MMCV' in str(error) else _INSTALL_MMDET
        return str(error).rstrip('.'), remedy
    try:
        import_module('mmcv.ops')
    except ImportError as error:
        return f'mmcv {found["mmcv"]} has no working compiled ops ({error})', _INSTALL_MMCV
    if find_spec('pkg_resources') is None:
        # MMEngine imports it only to find MMDetection's configs.
        return 'setuptools has no pkg_resources, which mmengine imports', _INSTALL_SETUPTOOLS
    # These imports need MMDetection's libraries, such as pycocotools.
    import_module('mmdet.datasets')
    try:
        import_module('mmdet.models')
    except TypeError as error:
        # mmpretrain replaces missing classes of transformers by None, and inherits from it.
        if find_spec('transformers') is None:
            raise
        problem = f'mmpretrain cannot be imported beside transformers {version("transformers")}'
        return f'{problem} ({error})', 'pip install "transformers<4.56"'
    return '', ''


def silence_pkg_resources() -> None:
    """Hides a warning that MMEngine causes when it looks for an installed package.

    Users cannot do anything about it. This is for tools, because it affects the whole process.
    """
    warnings.filterwarnings('ignore', 'pkg_resources is deprecated', UserWarning)


def installed_versions() -> dict[str, str | None]:
    """Finds the versions of this package and of its libraries.

    Returns:
        The result of :func:`installed_version` for each module's name.
    """
    found = {module: installed_version(module) for module in _DISTRIBUTIONS}
    return found | {'mmdet_hadaptive': __version__}


def installed_version(module: str) -> str | None:
    """Finds the version of an installed module.

    Args:
        module: torch, mmengine, mmcv or mmdet. The distribution may have another name.

    Returns:
        The version. 'of unknown version' for a source folder in ``sys.path``. None if it is
        missing.
    """
    if find_spec(module) is None:
        return None
    for name in _DISTRIBUTIONS[module]:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return _UNKNOWN
