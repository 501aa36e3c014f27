"""Finds and runs the command-line tools that the installed MMDetection brings along."""

import runpy
from pathlib import Path

from mmengine.utils import get_installed_path


def mmdet_tool(name: str) -> Path:
    """The path of one of MMDetection's tools.

    Args:
        name: Path below MMDetection's ``tools``, such as 'train.py'.

    Returns:
        The file in the installed package, or beside it in a source checkout.

    Raises:
        FileNotFoundError: If the installation has no such tool.
    """
    package = Path(get_installed_path('mmdet'))
    candidates = [package / '.mim' / 'tools' / name, package.parent / 'tools' / name]
    for path in candidates:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f'the installed mmdet has no tools/{name} (looked for {candidates[0]} and '
        f'{candidates[1]}): reinstall it, pip install --force-reinstall --no-deps mmdet==3.3.0'
    )


def run_mmdet_tool(name: str) -> None:
    """Runs one of MMDetection's tools in this process, with this process's arguments.

    Args:
        name: Path below MMDetection's ``tools``, such as 'train.py'.

    Raises:
        FileNotFoundError: If the installation has no such tool.
    """
    runpy.run_path(str(mmdet_tool(name)), run_name='__main__')
