"""Makes an exported model smaller: its dense convolutions compute with 8-bit integers."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from hadaptive_runtime import ExportError, Preprocessing
from hadaptive_runtime.model_file import decode_metadata, read_onnx
from hadaptive_runtime.onnx_session import create_session

from ..runtime.files import write_whole
from .images import run_pipeline
from .model_file import encode_model
from .preprocessing import set_input_size


@dataclass(frozen=True)
class QuantizationReport:
    """What was written.

    Attributes:
        file: The ONNX file.
        num_convolutions: How many of them compute with integers.
        num_images: How many images the ranges of their inputs and outputs were measured on.
    """

    file: Path
    num_convolutions: int
    num_images: int


def quantize_onnx(
    config: Config, model: str | Path, out: Path, num_images: int = 100
) -> QuantizationReport:
    """Quantises an exported model with ONNX Runtime's static quantisation (INT8, QDQ format).

    The dense two-dimensional convolutions get int8 weights, with a scale for each output channel,
    and uint8 inputs and outputs. Their ranges are the least and the largest values on training
    images, which go through the test pipeline. All else stays in float32: depthwise convolutions,
    the scorers that select channels, the products of ACH, decoding and non-maximum suppression.

    The metadata stays the same, so that whatever runs the exported model runs this one.

    Args:
        config: The config that the model was exported with; is changed. Its test pipeline resizes
            to what the model was exported for.
        model: As :func:`export_detector` writes it, of any mode and batch.
        out: The file to write.
        num_images: How many training images to measure ranges on, evenly spaced in the data set;
            all if it has fewer.

    Returns:
        What was written.

    Raises:
        ExportError: If the model is damaged, not of :func:`export_detector` or quantised already,
            was made for other classes, or if there are no training images or one cannot be read.
            Nothing is written.
        OSError: If a file cannot be read or written.
    """
    if num_images < 1:
        raise ExportError(f'at least 1 image is needed to measure ranges on, got {num_images}')
    exported, metadata = _load(model)
    preprocessing = Preprocessing.from_metadata(metadata)
    set_input_size(config, *preprocessing.resize)
    files = _training_images(config, metadata['classes'], num_images)
    with TemporaryDirectory() as folder:
        prepared, quantized = Path(folder) / 'prepared.onnx', Path(folder) / 'quantized.onnx'
        # Folds constants, as ONNX Runtime advises. Its symbolic inference of shapes gets those
        # of the non-maximum suppression wrong; those of the network are known without it.
        quant_pre_process(exported, str(prepared), skip_symbolic_shape=True)
        convolutions = _convolutions(onnx.load(prepared))
        quantize_static(
            prepared,
            quantized,
            _Reader(_batches(config, exported, preprocessing, files)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=['Conv'],
            nodes_to_quantize=convolutions,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        result = onnx.load(quantized)
    content = encode_model(result, metadata)
    session = create_session(content)
    outputs = session.run(None, next(_batches(config, exported, preprocessing, files)))
    if not all(np.isfinite(output).all() for output in outputs):
        raise ExportError(f'the quantised model gives NaN or infinite values for {files[0]}')
    write_whole(content, out)
    return QuantizationReport(out, len(convolutions), len(files))


class _Reader(CalibrationDataReader):
    """Hands batches to ONNX Runtime."""

    def __init__(self, batches: Iterator[dict[str, np.ndarray]]) -> None:
        self.batches = batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def _batches(
    config: Config, model: onnx.ModelProto, preprocessing: Preprocessing, files: list[str]
) -> Iterator[dict[str, np.ndarray]]:
    """Images as the model takes them; the last batch is filled up with the first images."""
    (images,) = model.graph.input
    # Without a number, the batch is dynamic.
    size = images.type.tensor_type.shape.dim[0].dim_value or 1
    for start in range(0, len(files), size):
        batch = [files[place % len(files)] for place in range(start, start + size)]
        yield {
            images.name: np.stack(
                [preprocessing.canvas(run_pipeline(config, file)) for file in batch]
            )
        }


def _load(model: str | Path) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The model and its metadata."""
    exported = onnx.load_from_string(read_onnx(model))
    metadata = decode_metadata({entry.key: entry.value for entry in exported.metadata_props})
    if any(node.op_type == 'QuantizeLinear' for node in exported.graph.node):
        raise ExportError(f'{model} is quantised already: start from the exported model')
    return exported, metadata


def _training_images(config: Config, classes: list[str], number: int) -> list[str]:
    init_default_scope(config.get('default_scope', 'mmdet'))
    loader = config.get('train_dataloader')
    if loader is None:
        raise ExportError('the config has no train_dataloader with images to measure ranges on')
    try:
        dataset = DATASETS.build(loader.dataset)
        files = list(
            dict.fromkeys(dataset.get_data_info(i)['img_path'] for i in range(len(dataset)))
        )
    except (OSError, ValueError) as error:
        raise ExportError(f"the config's training data cannot be read: {error}") from error
    if not files:
        raise ExportError("the config's training data has no image to measure ranges on")
    if list(dataset.metainfo['classes']) != classes:
        raise ExportError(
            f'the model detects {", ".join(classes)}; the training data has '
            f'{", ".join(dataset.metainfo["classes"])}: use the config that it was exported with'
        )
    places = np.linspace(0, len(files) - 1, min(number, len(files))).round().astype(int)
    return [files[place] for place in places]


def _convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of the dense convolutions of maps.

    Scorers have one-dimensional ones, unless they were fused into matrix products. Depthwise ones
    are faster in float32.
    """
    dense = {
        tensor.name
        for tensor in model.graph.initializer
        if len(tensor.dims) == 4 and tensor.dims[1] > 1
    }
    return [
        node.name for node in model.graph.node if node.op_type == 'Conv' and node.input[1] in dense
    ]
