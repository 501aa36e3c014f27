"""What an ONNX model becomes before it is written."""

import json
from collections.abc import Mapping
from typing import Any

import onnx

from hadaptive_runtime.model_file import append_digest


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
