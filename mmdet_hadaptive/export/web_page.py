"""Writes the web page that runs an exported detector."""

from collections.abc import Mapping
from pathlib import Path

from hadaptive_runtime import ExportError

from .onnxruntime_web import DIGESTS, find_onnxruntime_web

MODEL = 'model.onnx'
_SOURCE = Path(__file__).with_name('page')
# All servers know .js. Some do not know .mjs.
_RUNTIME = {name: f'onnxruntime/{name.replace(".mjs", ".js")}' for name in DIGESTS}


def read_web_page(onnxruntime_web: Path | None) -> Mapping[str, bytes]:
    """Reads the files of a page except for the model.

    Args:
        onnxruntime_web: See :func:`find_onnxruntime_web`.

    Returns:
        The content of each file, by its path in the folder.

    Raises:
        ExportError: If ONNX Runtime Web cannot be had.
    """
    runtime = find_onnxruntime_web(onnxruntime_web)
    page = {file.name: file.read_bytes() for file in _source_files()}
    return page | {_RUNTIME[name]: content for name, content in runtime.items()}


def check_web_folder(out: Path) -> None:
    """Checks that a page can be written to a folder.

    Args:
        out: The folder to write.

    Raises:
        ExportError: If it is a file, if it holds other files than a page's, or if it cannot be
            renamed.
    """
    folder = out.resolve()
    if Path.cwd().is_relative_to(folder) or folder.is_mount():
        raise ExportError(f'{out} cannot be replaced as a whole: name a folder in it')
    if folder.is_file() or (not folder.exists() and out.suffix == '.onnx'):
        raise ExportError(f'{out} must be a folder for a page: name another')
    known = {MODEL, *_RUNTIME.values(), *(file.name for file in _source_files())}
    there = (file for file in folder.rglob('*') if not file.is_dir())
    others = sorted(str(file.relative_to(folder)) for file in there)
    others = [name for name in others if name.replace('\\', '/') not in known]
    if others:
        raise ExportError(
            f'{out} is replaced as a whole, and has other files than those of a page, '
            f'{", ".join(others[:3])}{", ..." if len(others) > 3 else ""}: name another folder'
        )


def _source_files() -> list[Path]:
    return [file for file in _SOURCE.iterdir() if file.suffix in ('.html', '.css', '.js')]
