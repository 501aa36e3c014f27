"""Exported models as files: how they are written and read, with a digest that reveals damage."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from onnxruntime import InferenceSession

from ..runtime.onnx_session import create_session
from .errors import ExportError

# The last entry of the metadata, up to its value, in protobuf's encoding: the field 14 of the model
# (76 bytes) with the key 'sha256' and a value of 66 bytes. What comes before it is what it covers.
_DIGEST_ENTRY = b'rL\n\x06sha256\x12B'


def encode_model(model: onnx.ModelProto, metadata: Mapping[str, Any]) -> bytes:
    """Makes the content of a file of a model.

    Args:
        model: Its metadata are replaced.
        metadata: By name what can be written in JSON.

    Returns:
        The model with its metadata, each in JSON, and behind them the SHA-256 of all that.

    Raises:
        onnx.checker.ValidationError: If the model is not valid.
    """
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    return content + _DIGEST_ENTRY + _digest(content)


def read_model(file: str | Path) -> bytes:
    """Reads an exported model.

    Args:
        file: Its content is what :func:`encode_model` made.

    Returns:
        The content.

    Raises:
        ExportError: If it is something else.
        OSError: If the file cannot be read.
    """
    content = Path(file).read_bytes()
    body, _, digest = content.rpartition(_DIGEST_ENTRY)
    # Neither protobuf nor ONNX Runtime notice when a weight has changed.
    if digest != _digest(body):
        raise ExportError(
            f'{file} is damaged, or was not written by this package (its content does not fit a '
            'SHA-256 at its end): copy it again, or export it with tools/export_onnx.py'
        )
    return content


def open_model(file: str | Path) -> tuple[InferenceSession, dict[str, Any]]:
    """Loads an exported model into ONNX Runtime.

    Args:
        file: As :func:`read_model` takes it.

    Returns:
        The session, and the metadata.

    Raises:
        ExportError: If the file is not one of this package, or ONNX Runtime refuses it.
        OSError: If it cannot be read.
    """
    content = read_model(file)
    try:
        session = create_session(content)
    except ValueError as error:
        raise ExportError(f'{file}: {error}') from error
    return session, decode_metadata(session.get_modelmeta().custom_metadata_map)


def decode_metadata(entries: Mapping[str, str]) -> dict[str, Any]:
    """The values of metadata that are in JSON, without the digest."""
    return {key: json.loads(value) for key, value in entries.items() if key != 'sha256'}


def _digest(content: bytes) -> bytes:
    return json.dumps(hashlib.sha256(content).hexdigest()).encode()
