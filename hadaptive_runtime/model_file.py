"""Exported files and their metadata, with digests that reveal damage."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import ExportError

# The last entry of the metadata in ONNX, up to its value, in protobuf's encoding: the field 14 of
# the model (76 bytes) with the key 'sha256' and a value of 66 bytes. What comes before it is what
# it covers.
_DIGEST_ENTRY = b'rL\n\x06sha256\x12B'
_REMEDY = 'copy it again, or export it with tools/export.py'


def append_digest(content: bytes) -> bytes:
    """Appends the SHA-256 of an ONNX model to it, as the last of its metadata."""
    return content + _DIGEST_ENTRY + json.dumps(_digest(content)).encode()


def has_digest(content: bytes) -> bool:
    """Whether a file ends as :func:`append_digest` makes it, with the digest of its content."""
    body, _, digest = content.rpartition(_DIGEST_ENTRY)
    # Neither protobuf nor ONNX Runtime notice when a weight has changed.
    return digest == json.dumps(_digest(body)).encode()


def read_onnx(file: str | Path) -> bytes:
    """Reads an exported ONNX model.

    Args:
        file: With its metadata and a digest, as tools/export.py writes it.

    Returns:
        The content.

    Raises:
        ExportError: If it is something else.
        OSError: If the file cannot be read.
    """
    content = Path(file).read_bytes()
    if not has_digest(content):
        sidecar = Path(file).with_suffix('.json').name
        raise ExportError(
            f'{file} is damaged, or was not written by this package (its content does not fit a '
            f'SHA-256 at its end, nor has it metadata, {sidecar}, beside it): {_REMEDY}'
        )
    return content


def has_metadata_inside(file: Path) -> bool:
    """Whether a model is an ONNX file of the format 'onnx', also beside metadata of another.

    Args:
        file: One of the model's files, which need not exist.
    """
    if file.suffix != '.onnx':
        return False
    if not file.with_suffix('.json').is_file():
        return True
    return file.is_file() and has_digest(file.read_bytes())


def decode_metadata(entries: Mapping[str, str]) -> dict[str, Any]:
    """The values of metadata that are in JSON, without the digest."""
    return {key: json.loads(value) for key, value in entries.items() if key != 'sha256'}


def encode_sidecar(metadata: Mapping[str, Any], stem: Path, suffixes: Sequence[str]) -> str:
    """Makes the content of the JSON file beside a model whose format has no place for metadata.

    Args:
        metadata: By name what can be written in JSON, ``format`` among it.
        stem: The model's files, without their suffixes.
        suffixes: Of the model's files.

    Returns:
        The metadata, and the SHA-256 of each file and of all that.
    """
    files = {suffix: _digest(stem.with_suffix(suffix).read_bytes()) for suffix in suffixes}
    content = {**metadata, 'files': files}
    content['sha256'] = _digest(json.dumps(content).encode())
    return json.dumps(content, indent=1) + '\n'


def read_sidecar(file: Path) -> dict[str, Any]:
    """Reads the metadata beside a model and checks its files.

    Args:
        file: One of the model's files, or the JSON file beside them.

    Returns:
        The metadata.

    Raises:
        ExportError: If a file is missing or damaged.
        OSError: If a file cannot be read.
    """
    sidecar = file.with_suffix('.json')
    if not sidecar.is_file():
        # Named if it is missing.
        file.stat()
        raise ExportError(
            f'{file} has no metadata, {sidecar.name}, beside it: copy that as well; if there is '
            'none, the model is not one of this package: export it with tools/export.py'
        )
    try:
        metadata = json.loads(sidecar.read_text())
        expected = metadata.pop('sha256')
        files = metadata['files']
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportError(
            f'{sidecar} is damaged, or was not written by this package: {_REMEDY}'
        ) from error
    if expected != _digest(json.dumps(metadata).encode()):
        raise ExportError(f'{sidecar} is damaged (it does not fit its SHA-256): {_REMEDY}')
    if file.suffix not in (*files, '.json'):
        raise ExportError(
            f'{sidecar} belongs to {file.with_suffix(next(iter(files))).name}, not to {file.name}: '
            'export one of them under another name'
        )
    for suffix, digest in files.items():
        part = file.with_suffix(suffix)
        if not part.is_file():
            raise ExportError(f'{part} is missing: {sidecar.name} belongs to it; {_REMEDY}')
        if _digest(part.read_bytes()) != digest:
            raise ExportError(
                f'{part} is damaged, or of another export than {sidecar.name} (it does not fit '
                f'the SHA-256 in there): {_REMEDY}'
            )
    return metadata


def list_files(file: Path) -> list[Path]:
    """Lists the files of an exported model.

    Args:
        file: As :func:`~hadaptive_runtime.load_exported` takes it, and has loaded it.

    Returns:
        It, and those that belong to it.
    """
    if has_metadata_inside(file):
        return [file]
    suffixes = [*read_sidecar(file)['files'], '.json']
    return [file.with_suffix(suffix) for suffix in suffixes]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
