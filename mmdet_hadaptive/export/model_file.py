"""Makes ONNX files, and reads the metadata of files of all formats."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from hadaptive_runtime import ExportError
from hadaptive_runtime.errors import describe_error
from hadaptive_runtime.model_file import (
    REMEDY,
    decode_metadata,
    has_metadata_inside,
    read_sidecar,
)


def encode_model(model: onnx.ModelProto, metadata: Mapping[str, Any]) -> bytes:
    """Makes the content of a model's file.

    Args:
        model: The model. Its metadata are replaced.
        metadata: Values by their names. JSON can hold each value.

    Returns:
        The model with its metadata, each in JSON.

    Raises:
        onnx.checker.ValidationError: If the model is not valid.
    """
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def read_metadata(file: Path) -> dict[str, Any]:
    """Reads the metadata of an exported model without its runtime.

    Args:
        file: A file that :func:`~hadaptive_runtime.load_exported` can load.

    Returns:
        The metadata, ``format`` among them.

    Raises:
        ExportError: If the model cannot be parsed, or is not from this package.
        OSError: If the file cannot be read.
    """
    if not has_metadata_inside(file):
        return read_sidecar(file)
    content = file.read_bytes()
    try:
        model = onnx.load_from_string(content)
    except Exception as error:  # protobuf's errors have no common type
        raise ExportError(f'ONNX cannot load {file} ({describe_error(error)}): {REMEDY}') from error
    entries = {entry.key: entry.value for entry in model.metadata_props}
    metadata = {'format': 'onnx', **decode_metadata(entries)}
    if 'classes' not in metadata:
        raise ExportError(f'{file} has no metadata, it was not written by this package: {REMEDY}')
    return metadata
