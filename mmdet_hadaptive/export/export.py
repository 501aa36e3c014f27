"""Exports a detector to a file for another runtime, after a comparison with PyTorch."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel

from hadaptive_runtime import Detections, ExportError, load_exported
from hadaptive_runtime.images import read_image
from hadaptive_runtime.onnx_session import create_session, open_onnx
from hadaptive_runtime.session import Session

from ..utils.detectors import load_detector
from ..utils.files import write_all_whole, write_whole_folder
from ..utils.safe_loading import UnreadableCheckpointError
from .comparison import compare_outputs, run_detector
from .conversion import EXPORTERS, Conversion, Exporter
from .formats import FORMATS, check_request
from .fuse import fuse_for_inference
from .images import first_test_image, run_pipeline
from .network import ExportNetwork, counts_image_pixels
from .onnx_nms import describe_nms
from .preprocessing import read_preprocessing, set_input_size
from .prune import PruningReport, prune_products
from .pytorch_evaluation import collect_on_training_images, make_evaluation
from .quantization import QuantizationReport, check_tolerance, quantize_exported, training_images
from .support import Outputs, check_support
from .web_page import read_web_page

# The contribution of products is measured on so many training images.
_NUM_IMAGES = 100
_MAX_APART = 1.0


@dataclass(frozen=True)
class ExportReport:
    """The result of an export.

    Attributes:
        file: The model, as :func:`~hadaptive_runtime.load_exported` takes it.
        files: All files, including the model.
        input_shape: (B, 3, H, W). B is 'batch' if it is dynamic.
        output_shapes: The shape of each output.
        image: The image for the comparison of PyTorch and the other runtime.
        difference: The largest absolute difference between their outputs. For detections, this is
            the distance to the nearest detection of the same class, in pixels or score.
        pruning: The removed products. None if the detector was not pruned.
        quantization: The mAP before and after INT8. None if the model computes in float32. The
            difference is that of the model before the quantisation.
    """

    file: Path
    files: tuple[Path, ...]
    input_shape: tuple[int | str, ...]
    output_shapes: dict[str, tuple[int | str, ...]]
    image: str
    difference: float
    pruning: PruningReport | None = None
    quantization: QuantizationReport | None = None


def export_detector(
    config: Config,
    checkpoint: str | Path,
    out: Path,
    format: str = 'onnx',
    *,
    outputs: Outputs = 'detections',
    batch: int | None = 1,
    normalize: bool = False,
    exporter: Exporter = 'torchscript',
    opset: int = 18,
    size: tuple[int, int] | None = None,
    image: str | Path | None = None,
    tolerance: float | None = 1e-3,
    prune: float | None = None,
    onnxruntime_web: Path | None = None,
    int8: float | None = None,
) -> ExportReport:
    """Exports a detector, compares it with PyTorch on an image, and writes it if they agree.

    It exports the fused copy (:func:`mmdet_hadaptive.export.fuse_for_inference`), and compares it
    with the detector itself, which may be pruned first.

    The metadata are ``mode`` ('nms' for detections), ``classes``, the attributes of
    :class:`Preprocessing`, and for detections those of :func:`describe_nms`. An ONNX file holds
    them in its ``metadata_props``, each in JSON. Other formats have a JSON file of the same name.
    The format 'web' is a folder with an ONNX file and a page that runs it in a browser.

    In ONNX, the detections are ``boxes`` (B, K, 4), (x1, y1, x2, y2) in pixels of the input,
    ``scores`` (B, K), the highest first, and ``labels`` (B, K), int64. Rows without a detection
    have the score 0 and the label -1. If ``min_bbox_size`` is above 0, :class:`Detector` selects
    the detections, because the network does not know the size of the image. For the other outputs
    see :class:`ExportNetwork`.

    Args:
        config: The detector's config. Its test pipeline is changed if ``size`` is given.
        checkpoint: The weights of the whole detector.
        out: The file to write, with the suffix of its format. For the format 'web' a folder.
        format: One of :data:`FORMATS`.
        outputs: One of :data:`OUTPUTS`. Formats other than ONNX have only 'detections'.
        batch: The batch size. None accepts any.
        normalize: Whether the model takes pixel values (0 to 255, BGR) and normalises them itself.
        exporter: PyTorch's exporter to ONNX, also for formats that are made from ONNX.
            'torchscript' writes files that more runtimes load. 'dynamo' is newer.
        opset: The version of ONNX's operators.
        size: Height and width to resize to, instead of the test pipeline's.
        image: The image for the comparison. The default is the first of the config's test data.
        tolerance: The largest accepted difference. None accepts every difference, and also an
            image without detections.
        prune: The mAP on the config's validation data that may be lost by removing products and
            freezing selections (:func:`mmdet_hadaptive.export.prune_products`). None keeps all
            products.
        onnxruntime_web: The package or its folder, for the format 'web'. By default it comes from
            npm (:func:`find_onnxruntime_web`).
        int8: The mAP on the config's validation data that may be lost by 8-bit integers
            (:func:`quantize_exported`), after the comparison. None for float32.

    Returns:
        The files, shapes and differences.

    Raises:
        ExportError: If the detector cannot be exported, the checkpoint or the image cannot be
            used, it cannot be pruned or quantised, or the outputs differ. Nothing is written.
        OSError: If a file cannot be read or written.
    """
    writer = FORMATS.get(format)
    if writer is None:
        raise ExportError(f'format must be one of {", ".join(FORMATS)}, got {format!r}')
    if exporter not in EXPORTERS:
        raise ExportError(f'exporter must be one of {", ".join(EXPORTERS)}, got {exporter!r}')
    if batch is not None and batch < 1:
        raise ExportError(f'the batch must be at least 1, or None for a dynamic one, got {batch}')
    check_request(writer, out, outputs, batch, int8 is not None)
    page = read_web_page(onnxruntime_web) if writer.model else {}
    if size is not None:
        set_input_size(config, *size)
    preprocessing = read_preprocessing(config)
    try:
        detector, classes = load_detector(config, checkpoint)
    except UnreadableCheckpointError as error:
        raise ExportError(str(error)) from error
    # What can be wrong is asked for before anything that takes long.
    check_support(detector, outputs)
    if writer.model and counts_image_pixels(detector):
        raise ExportError(
            'model.test_cfg.min_bbox_size counts pixels of the image, which the page does not '
            'know: set it to 0, with --cfg-options model.test_cfg.min_bbox_size=0'
        )
    image = str(image or first_test_image(config))
    pixels = run_pipeline(config, image)
    plain = preprocessing.outside()
    prepared, factors = plain.prepare(read_image(Path(image)))
    # In pixel values. Decoders of JPEG differ by less.
    apart = np.abs(prepared - plain.canvas(pixels)).mean()
    if apart > _MAX_APART:
        raise ExportError(
            f'the exported model would not prepare {image} as the test pipeline does (the pixels '
            f'differ by {apart:.1f} of 255): use LoadImageFromFile, Resize and Pad in this order'
        )
    if int8 is not None:
        check_tolerance(int8)
        training_images(config, classes, 1)
    network = ExportNetwork(detector, outputs, preprocessing, normalize, writer.has_nms)
    # Two different images, so that a batch that is mixed up is found out.
    images = [(pixels, np.ascontiguousarray(pixels[:, ::-1]))[i % 2] for i in range(batch or 2)]
    inputs = np.stack([network.preprocessing.canvas(x) for x in images])
    # The name that the runtimes know.
    mode = 'nms' if outputs == 'detections' else outputs
    metadata = dict(mode=mode, classes=classes, **network.preprocessing.metadata())
    if outputs == 'detections':
        metadata |= describe_nms(detector.bbox_head.test_cfg, network)

    def convert(detector: BaseModel, made: Path) -> tuple[Session, float]:
        """Writes the model. Returns its session and its difference from the detector."""
        network = ExportNetwork(detector, outputs, preprocessing, normalize, writer.has_nms)
        network = fuse_for_inference(network, torch.from_numpy(inputs))
        made.parent.mkdir()
        writer.write(
            network, torch.from_numpy(inputs), made, metadata, Conversion(batch, exporter, opset)
        )
        session, actual = _run(made, outputs, inputs, factors)
        expected = run_detector(detector, outputs, preprocessing, images, factors)
        return session, compare_outputs(expected, actual, image, tolerance, writer.runtime)

    with TemporaryDirectory() as folder:
        made = Path(folder, 'detector', writer.model or out.name)
        session, difference = convert(detector, made)
        pruning = None
        if prune is not None:
            # The detector was converted before, because pruning takes long.
            detector, pruning = _prune(config, detector, prune)
            made = Path(folder, 'pruned', made.name)
            session, difference = convert(detector, made)
        shapes = {name: value.shape for name, value in session.run(inputs).items()}
        quantization = None
        if int8 is not None:
            quantization = quantize_exported(config, made, metadata, batch, writer.quantize, int8)
        content = {path.name: path.read_bytes() for path in sorted(made.parent.iterdir())}
    if writer.model:
        content |= page
        write_whole_folder(content, out)
    else:
        write_all_whole({out.with_name(name): content[name] for name in content})
    place = out if writer.model else out.parent
    size = 'batch' if batch is None else batch
    return ExportReport(
        file=place / made.name,
        files=tuple(place / name for name in content),
        input_shape=(size, *inputs.shape[1:]),
        output_shapes={name: (size, *shape[1:]) for name, shape in shapes.items()},
        image=image,
        difference=difference,
        pruning=pruning,
        quantization=quantization,
    )


def _run(
    file: Path, outputs: Outputs, inputs: np.ndarray, factors: np.ndarray
) -> tuple[Session, list[Detections] | list[np.ndarray]]:
    """The exported model, and what it gives, as users get it."""
    if outputs == 'detections':
        detector = load_exported(file, torch.get_num_threads())
        return detector.session, detector.detect(inputs, np.tile(factors, (len(inputs), 1)))
    session = open_onnx(create_session(file, torch.get_num_threads()))
    return session, list(session.run(inputs).values())


def _prune(
    config: Config, detector: BaseModel, tolerance: float
) -> tuple[BaseModel, PruningReport]:
    try:
        statistics = collect_on_training_images(detector, config, _NUM_IMAGES)
        return prune_products(detector, statistics, make_evaluation(config), tolerance)
    except ValueError as error:
        raise ExportError(f'the detector cannot be pruned: {error}') from error
