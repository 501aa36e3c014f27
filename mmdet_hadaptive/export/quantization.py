"""Quantises an exported model to 8-bit integers, and compares its mAP before and after."""

import copy
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from hadaptive_runtime.model_file import read_sidecar

from .evaluation import ExportedDetector, read_in_this_process
from .images import run_pipeline
from .model_file import encode_model
from .pytorch_evaluation import make_evaluation
from .writers import import_package, write_sidecar

# Quantises a file in place. Arguments: the file, batches of its inputs, its metadata.
Quantizer = Callable[[Path, Iterator[np.ndarray], Mapping[str, Any]], None]

# The ranges of values are measured on so many training images.
_NUM_IMAGES = 100
# Metrics are rounded decimals. In floating point, 0.545 - 0.535 is not exactly 0.01.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class QuantizationReport:
    """The result of a quantisation.

    Attributes:
        metric_before: The mAP of the exported model on the validation data.
        metric_after: The mAP of the quantised model.
        tolerance: The allowed loss.
        num_images: The number of training images for the ranges.
    """

    metric_before: float
    metric_after: float
    tolerance: float
    num_images: int

    def __str__(self) -> str:
        """Describes the result in a line."""
        return (
            f'INT8, measured on {self.num_images} training images: metric '
            f'{self.metric_before:.4f}, now {self.metric_after:.4f} (tolerance '
            f'{self.tolerance:g})'
        )


def quantize_exported(
    config: Config,
    file: Path,
    metadata: Mapping[str, Any],
    batch: int | None,
    quantize: Quantizer,
    tolerance: float,
) -> QuantizationReport:
    """Quantises an exported detector, if its mAP does not fall by more than a tolerance.

    Ranges are measured on training images, which the test pipeline reads.

    Args:
        config: The config that the model was exported with, with training and validation data.
        file: The exported model. The quantised model replaces it.
        metadata: The file's metadata.
        batch: The batch size of the model. None accepts any.
        quantize: The format's function for quantisation.
        tolerance: The allowed loss of mAP on the validation data, see :func:`check_tolerance`.

    Returns:
        The mAP before and after.

    Raises:
        ExportError: If the training data has other classes, if there are no training images or one
            cannot be read, if there is no validation data, if the mAP is not above 0 before, or if
            it falls by more.
    """
    files = training_images(config, metadata['classes'], _NUM_IMAGES)
    config = copy.deepcopy(config)
    if config.get('val_dataloader'):
        read_in_this_process(config.val_dataloader)
    try:
        evaluate = make_evaluation(config)
        exported = ExportedDetector(file)
        preprocessing = Preprocessing.from_metadata(metadata)
        quantize(file, _batches(config, batch or 1, preprocessing, files), metadata)
        before = evaluate(exported)
        if not before > 0:
            raise ExportError(
                f'the mAP of the model is {before:g} without INT8, so nothing can be lost: train '
                'it further, or see whether the validation data has annotations of its classes'
            )
        after = evaluate(ExportedDetector(file))
    except ExportError:
        raise
    except ValueError as error:
        raise ExportError(f'the detector cannot be quantised: {error}') from error
    if not before - after <= tolerance + _ROUNDING:
        raise ExportError(
            f'with INT8 the mAP falls from {before:.4f} to {after:.4f}, by more than '
            f'{tolerance:g}, and nothing is written: accept it with --int8 '
            f'{math.ceil(1000 * (before - after - _ROUNDING)) / 1000:g}, or leave out --int8'
        )
    return QuantizationReport(before, after, tolerance, len(files))


def check_tolerance(tolerance: float) -> None:
    """Checks the allowed loss of mAP by INT8, before the export starts.

    Raises:
        ExportError: If it is below 0, or not a number.
    """
    if not tolerance >= 0:
        raise ExportError(
            f'the tolerance of INT8 must be at least 0, got {tolerance}: it is how much of the mAP '
            'may be lost'
        )


def quantize_onnx(file: Path, batches: Iterator[np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Quantises with ONNX Runtime's static quantisation (INT8, QDQ format).

    Dense two-dimensional convolutions get int8 weights, with a scale for each output channel, and
    uint8 inputs and outputs. Everything else stays in float32: depthwise convolutions, the scorers
    that select channels, the products of ACH, decoding and non-maximum suppression.
    """
    exported = onnx.load(file)
    (images,) = exported.graph.input
    with TemporaryDirectory() as folder:
        prepared, quantized = Path(folder) / 'prepared.onnx', Path(folder) / 'quantized.onnx'
        # This folds constants, as ONNX Runtime recommends. Its symbolic inference of shapes is
        # wrong for non-maximum suppression, and not needed: the network's shapes are known.
        quant_pre_process(exported, str(prepared), skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            _Reader(images.name, batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=['Conv'],
            nodes_to_quantize=_dense_convolutions(onnx.load(prepared)),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        file.write_bytes(encode_model(onnx.load(quantized), metadata))


def quantize_openvino(
    file: Path, batches: Iterator[np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Quantises with NNCF, OpenVINO's own library."""
    openvino = import_package('openvino')
    # Otherwise it sends usage statistics over the network.
    os.environ.setdefault('NNCF_CI', '1')
    nncf = import_package('nncf')
    suffixes = ('.xml', '.bin')
    batch, images = read_sidecar(file)['batch'], list(batches)
    with TemporaryDirectory() as folder:
        made = Path(folder, file.name)
        model = openvino.Core().read_model(file)
        quantized = nncf.quantize(model, nncf.Dataset(images), subset_size=len(images))
        openvino.save_model(quantized, made, compress_to_fp16=False)
        del model, quantized
        for suffix in suffixes:
            # Not into the old file, because a session may have mapped it.
            made.with_suffix(suffix).replace(file.with_suffix(suffix))
    write_sidecar(file, suffixes, 'openvino', metadata, batch)


class _Reader(CalibrationDataReader):
    """Gives batches to ONNX Runtime."""

    def __init__(self, name: str, batches: Iterator[np.ndarray]) -> None:
        self.name = name
        self.batches = batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch}


def _batches(
    config: Config, size: int, preprocessing: Preprocessing, files: list[str]
) -> Iterator[np.ndarray]:
    """Yields batches for the model. The last batch is filled up with the first images."""
    for start in range(0, len(files), size):
        batch = [files[place % len(files)] for place in range(start, start + size)]
        yield np.stack([preprocessing.canvas(run_pipeline(config, file)) for file in batch])


def training_images(config: Config, classes: Sequence[str], number: int) -> list[str]:
    """Lists training images, evenly spaced in the data set, each once.

    Args:
        config: A config that has a ``train_dataloader``.
        classes: The classes of the exported model.
        number: The number of images. If there are fewer, all.

    Returns:
        Their files.

    Raises:
        ExportError: If there are none, or if they have other classes.
    """
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
        reason = ' '.join(str(error).split())
        raise ExportError(f"the config's training data cannot be read: {reason}") from error
    if not files:
        raise ExportError("the config's training data has no image to measure ranges on")
    if list(dataset.metainfo['classes']) != list(classes):
        raise ExportError(
            f'the model detects {", ".join(classes)}; the training data has '
            f'{", ".join(dataset.metainfo["classes"])}: use the config of the training'
        )
    places = np.linspace(0, len(files) - 1, min(number, len(files))).round().astype(int)
    return [files[place] for place in places]


def _dense_convolutions(model: onnx.ModelProto) -> list[str]:
    """Returns the names of dense two-dimensional convolutions.

    Scorers have one-dimensional convolutions, or were fused into matrix products. Depthwise
    convolutions are faster in float32.
    """
    dense = {
        tensor.name
        for tensor in model.graph.initializer
        if len(tensor.dims) == 4 and tensor.dims[1] > 1
    }
    return [
        node.name for node in model.graph.node if node.op_type == 'Conv' and node.input[1] in dense
    ]
