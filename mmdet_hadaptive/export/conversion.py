"""Converts a PyTorch network to an ONNX model."""

import io
import warnings
from typing import Literal, NamedTuple, get_args

import onnx
import torch
from torch import Tensor

from hadaptive_runtime import ExportError
from hadaptive_runtime.errors import describe_error

from .network import ExportNetwork

Exporter = Literal['torchscript', 'dynamo']
EXPORTERS: tuple[Exporter, ...] = get_args(Exporter)


class Conversion(NamedTuple):
    """The options of a conversion.

    Attributes:
        batch: The batch size. None accepts any.
        exporter: PyTorch's exporter to ONNX.
        opset: The version of ONNX's operators.
    """

    batch: int | None
    exporter: Exporter
    opset: int


def convert_to_onnx(
    network: ExportNetwork, inputs: Tensor, dynamic: bool, exporter: Exporter, opset: int
) -> onnx.ModelProto:
    """Converts a network with one of PyTorch's exporters.

    Args:
        network: The network. Its input gets the name ``images``. Its ``output_names`` name the
            outputs.
        inputs: A batch. It has at least two images if the batch is dynamic.
        dynamic: Whether the model accepts any batch size.
        exporter: One of :data:`EXPORTERS`.
        opset: The version of ONNX's operators.

    Returns:
        The model.

    Raises:
        ExportError: If the exporter fails, uses another opset, or makes the batch size constant.
    """
    convert = _convert_with_dynamo if exporter == 'dynamo' else _convert_with_torchscript
    with warnings.catch_warnings():
        # They are about comparisons of shapes, which are constant here, and about PyTorch's own
        # deprecations.
        warnings.simplefilter('ignore')
        try:
            model = convert(network, inputs, dynamic, opset)
        except Exception as error:  # errors have many types
            raise ExportError(
                f"PyTorch's {exporter} exporter fails with opset {opset} "
                f'({describe_error(error)}): use another --opset, such as 18, or another --exporter'
            ) from error
    (written,) = (entry.version for entry in model.opset_import if not entry.domain)
    if written != opset:
        raise ExportError(
            f"PyTorch's {exporter} exporter gives opset {written}, not {opset}: use --opset "
            f'{written} or another --exporter'
        )
    if dynamic and not model.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise ExportError(
            f'the detector makes the batch constant with the {exporter} exporter: use --batch 1 or '
            'another --exporter'
        )
    return model


def _convert_with_dynamo(
    network: ExportNetwork, inputs: Tensor, dynamic: bool, opset: int
) -> onnx.ModelProto:
    program = torch.onnx.export(
        network,
        (inputs,),
        dynamo=True,
        input_names=['images'],
        output_names=network.output_names,
        opset_version=opset,
        dynamic_shapes=({0: torch.export.Dim('batch')},) if dynamic else None,
        verbose=False,
    )
    return program.model_proto


def _convert_with_torchscript(
    network: ExportNetwork, inputs: Tensor, dynamic: bool, opset: int
) -> onnx.ModelProto:
    names = ['images', *network.output_names]
    buffer = io.BytesIO()
    torch.onnx.export(
        network,
        (inputs,),
        buffer,
        dynamo=False,
        input_names=names[:1],
        output_names=names[1:],
        opset_version=opset,
        dynamic_axes={name: {0: 'batch'} for name in names} if dynamic else None,
    )
    return onnx.load_from_string(buffer.getvalue())
