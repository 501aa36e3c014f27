"""ONNX models as files, and the metadata of files of all formats."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from hadaptive_runtime.model_file import (
    append_digest,
    decode_metadata,
    has_metadata_inside,
    read_onnx,
    read_sidecar,
)


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
    return append_digest(model.SerializeToString())


def read_metadata(file: Path) -> dict[str, Any]:
    """Reads the metadata of an exported model without its runtime.

    Args:
        file: As :func:`~hadaptive_runtime.load_exported` takes it.

    Returns:
        The metadata, ``format`` among them.

    Raises:
        ExportError: If the model is damaged, or not from this package.
        OSError: If the file cannot be read.
    """
    if not has_metadata_inside(file):
        return read_sidecar(file)
    model = onnx.load_from_string(read_onnx(file))
    entries = {entry.key: entry.value for entry in model.metadata_props}
    return {'format': 'onnx', **decode_metadata(entries)}
