"""Replaces the backbone in a config of MMDetection: plan, smoke test, write."""

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
    source: str, out: Path, arch: str = 'small', size: int = 256
) -> tuple[dict[str, Costs] | str, SmokeTestResult]:
    """Writes a thin config that puts Hadaptive-Net into a detector.

    Nothing is written unless the new detector is built, learns and predicts.

    Args:
        source: A config file, or one of MMDetection's as 'mmdet::folder/name.py'.
        out: The file to write, with the suffix .py; it must not exist.
        arch: The name of an architecture of :class:`HadaptiveNet`, such as 'small'.
        size: Side length in pixels of the random images of the smoke test; a multiple of 32.

    Returns:
        The costs of the 'detector' and of its 'backbone' before, or why they cannot be known, and
        the result of the smoke test of the new detector.

    Raises:
        SwapError: If the backbone cannot be replaced.
        SmokeTestError: If the detector with the new backbone fails the smoke test; one kind of
            :class:`SwapError`.
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
    # What keeps the old detector from running here says nothing about the new one.
    except SmokeTestError as error:
        before = str(error)
    write_whole(text, out)
    return before, result


def load_source(base: str, folder: Path | None = None) -> Config:
    """Loads a config of which only the description matters, without what it imports.

    Args:
        base: The config as another one in the folder names it in ``_base_``.
        folder: The folder; needed only if the name is relative.

    Returns:
        The config.

    Raises:
        SwapError: If it cannot be loaded, or not inherited by a config in text.
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
    """Loads a config as if it lay in a folder."""
    with NamedTemporaryFile(
        'w', dir=folder, prefix='swap_', suffix='.py', encoding='utf-8'
    ) as file:
        file.write(text)
        file.flush()
        try:
            return Config.fromfile(file.name, import_custom_modules=imports)
        # A config is a program: anything can go wrong in it.
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
