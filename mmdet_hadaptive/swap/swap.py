"""Replaces the backbone in a config of MMDetection, after a smoke test."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile, gettempdir

from mmengine.config import Config

from hadaptive_runtime.errors import describe_error

from ..models import ARCHITECTURES
from ..utils.costs import Costs
from ..utils.files import write_whole
from .errors import SmokeTestError, SwapError
from .rendering import render_config
from .rules import plan_swap
from .smoke import SmokeTestResult, count_detector_costs, smoke_test


def swap_backbone(
    source: str, out: Path, arch: str = 'small', size: int = 320
) -> tuple[dict[str, Costs] | str, SmokeTestResult]:
    """Writes a config that inherits a detector and replaces its backbone by Hadaptive-Net.

    It writes only if the new detector can be built, learns and predicts.

    Args:
        source: A config file, or one of MMDetection's, such as 'mmdet::folder/name.py'.
        out: The file to write, with the suffix .py. It must not exist.
        arch: The name of an architecture of :class:`HadaptiveNet`, such as 'small'.
        size: The side of the smoke test's random images in pixels, a multiple of 32. The last maps
            of some detectors, such as SSD300, are smaller than their kernels below 288.

    Returns:
        The costs of the 'detector' and of its 'backbone' before, or the reason why they are
        unknown. And the result of the new detector's smoke test.

    Raises:
        SwapError: If the backbone cannot be replaced.
        SmokeTestError: If the new detector fails the smoke test. It is a :class:`SwapError`.
        ValueError: If an argument has a value outside its limits.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f'arch must be one of {sorted(ARCHITECTURES)}, got {arch!r}')
    if size < 64 or size % 32:
        raise ValueError(f'size must be a multiple of 32 and at least 64, got {size}')
    if out.suffix != '.py':
        raise ValueError(f'{out} must end in .py, as a config does: name another file')
    if out.exists():
        raise ValueError(f'{out} exists: remove it, or name another file')
    if not out.parent.is_dir():
        raise ValueError(f'{out} cannot be written, {out.parent} is not a folder: make it first')
    base = _name_base(source, out)
    config = load_source(base, out.parent)
    text = render_config(base, plan_swap(config, arch))
    result = smoke_test(_load(text, out.parent), size)
    try:
        before: dict[str, Costs] | str = count_detector_costs(config, size)
    # If the old detector cannot run, the new one may still work.
    except SmokeTestError as error:
        before = str(error)
    write_whole(text, out)
    return before, result


def load_source(base: str, folder: Path | None = None) -> Config:
    """Loads a config without its ``custom_imports``, which the old backbone alone may need.

    Args:
        base: The config, as another config in the folder names it in ``_base_``.
        folder: The folder. It is needed only for relative names.

    Returns:
        The config.

    Raises:
        SwapError: If it cannot be loaded, or if a config in text cannot inherit it.
    """
    return _load(f'_base_ = {base!r}\n', folder or Path(gettempdir()), imports=False)


def _name_base(source: str, out: Path) -> str:
    if '::' in source:
        return source
    path = Path(source)
    if not path.is_file():
        raise SwapError(
            f"{source}: no such file; MMDetection's own are named mmdet::folder/name.py"
        )
    return Path(os.path.relpath(path.resolve(), out.parent.resolve())).as_posix()


def _load(text: str, folder: Path, imports: bool = True) -> Config:
    """Loads a config as if it were in a folder."""
    with NamedTemporaryFile(
        'w', dir=folder, prefix='swap_', suffix='.py', encoding='utf-8'
    ) as file:
        file.write(text)
        file.flush()
        try:
            return Config.fromfile(file.name, import_custom_modules=imports)
        # A config is a program. It can raise any error.
        except Exception as error:
            source = text.split('\n')[0].removeprefix('_base_ = ')
            if 'lazy_import' in str(error):
                raise SwapError(
                    f"{source} is a config in MMEngine's new style (read_base, or classes as "
                    'types), which a config with _base_ cannot inherit: write it in the old style '
                    'with python -c "from mmengine.config import Config; '
                    f"Config.fromfile('FILE').dump('old_style.py')\", and replace the backbone in "
                    'old_style.py'
                ) from error
            raise SwapError(f'{source} cannot be loaded: {describe_error(error)}') from error
