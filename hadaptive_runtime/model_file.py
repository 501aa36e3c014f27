"""Reads exported files and their metadata."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import ExportError

REMEDY = 'copy it again, or export it with tools/export.py'


def has_metadata_inside(file: Path) -> bool:
    """Returns whether a model is an ONNX file with metadata inside. Other files do not matter.

    Args:
        file: One of the model's files. It need not exist.
    """
    if file.suffix != '.onnx':
        return False
    sidecar = file.with_suffix('.json')
    if not sidecar.is_file():
        return True
    # A file beside it may belong to a model of another format.
    try:
        files = _read_json(sidecar)['files']
    except ExportError:
        return True
    # The file holds the names of metadata as plain text.
    return '.onnx' not in files or (file.is_file() and b'channel_order' in file.read_bytes())


def decode_metadata(entries: Mapping[str, str]) -> dict[str, Any]:
    """Reads the metadata of an ONNX file.

    Args:
        entries: The texts by their names. Entries of other tools may not be JSON. They are left
            out.

    Returns:
        The values.
    """
    values = {}
    for key, text in entries.items():
        try:
            values[key] = json.loads(text)
        except ValueError:
            continue
    return values


def encode_sidecar(metadata: Mapping[str, Any], suffixes: Sequence[str]) -> str:
    """Makes the JSON file beside a model, for formats that cannot hold metadata.

    Args:
        metadata: Values by their names, ``format`` among them. JSON can hold each value.
        suffixes: The suffixes of the model's files.

    Returns:
        The text.
    """
    return json.dumps({**metadata, 'files': list(suffixes)}, indent=1) + '\n'


def read_sidecar(file: Path) -> dict[str, Any]:
    """Reads the metadata beside a model.

    Args:
        file: One of the model's files, or the JSON file beside them.

    Returns:
        The metadata.

    Raises:
        ExportError: If one of the files is missing, or if the metadata are not those of a model.
        OSError: If a file cannot be read.
    """
    sidecar = file.with_suffix('.json')
    if not sidecar.is_file():
        # If it is missing, this error names it.
        file.stat()
        raise ExportError(
            f'{file} has no metadata, {sidecar.name}, beside it: copy that as well; if there is '
            'none, the model is not one of this package: export it with tools/export.py'
        )
    metadata = _read_json(sidecar)
    files = metadata['files']
    if file.suffix not in (*files, '.json'):
        raise ExportError(
            f'{sidecar} belongs to {file.with_suffix(files[0]).name}, not to {file.name}: '
            'export one of them under another name'
        )
    for suffix in files:
        part = file.with_suffix(suffix)
        if not part.is_file():
            raise ExportError(f'{part} is missing: {sidecar.name} belongs to it; {REMEDY}')
    return metadata


def list_files(file: Path) -> list[Path]:
    """Lists the files of an exported model.

    Args:
        file: The file that :func:`~hadaptive_runtime.load_exported` has loaded.

    Returns:
        This file and the files that belong to it.
    """
    if has_metadata_inside(file):
        return [file]
    suffixes = [*read_sidecar(file)['files'], '.json']
    return [file.with_suffix(suffix) for suffix in suffixes]


def _read_json(sidecar: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(sidecar.read_bytes())
        files = list(metadata['files'])
        if not files or not all(isinstance(suffix, str) and suffix[:1] == '.' for suffix in files):
            raise ValueError('it names no files')
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ExportError(
            f'{sidecar} is damaged, or was not written by this package: {REMEDY}'
        ) from error
    return {**metadata, 'files': files}
