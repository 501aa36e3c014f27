"""Writes a detector as an ONNX file that is compared with PyTorch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel

from ..analysis.evaluation import collect_on_training_images, make_evaluation
from ..deploy import PruningReport, fuse_for_inference, prune_products
from ..runtime.files import write_whole
from ..runtime.onnx_session import create_session
from .checkpoint import load_detector
from .comparison import compare_outputs, run_detector
from .conversion import EXPORTERS, Exporter, convert_to_onnx
from .errors import ExportError
from .images import first_test_image, run_pipeline
from .model_file import encode_model
from .network import ExportNetwork
from .preprocessing import Preprocessing, set_input_size
from .support import Mode
from .suppression import append_nms

# Training images on which it is measured what products contribute.
_NUM_IMAGES = 100


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        file: The ONNX file.
        input_shape: (B, 3, H, W); B is 'batch' if it is dynamic.
        output_shapes: Per output its shape.
        image: The image that PyTorch and ONNX Runtime both saw.
        difference: The largest absolute difference between their outputs. Of mode 'nms', between
            a detection of one and the nearest of the same class of the other, in pixels or score.
        pruning: What was removed from the detector before; None if it was not pruned.
    """

    file: Path
    input_shape: tuple[int | str, ...]
    output_shapes: dict[str, tuple[int | str, ...]]
    image: str
    difference: float
    pruning: PruningReport | None = None


def export_onnx(
    config: Config,
    checkpoint: str | Path,
    out: Path,
    mode: Mode = 'nms',
    *,
    batch: int | None = 1,
    normalize: bool = False,
    exporter: Exporter = 'dynamo',
    opset: int = 18,
    size: tuple[int, int] | None = None,
    image: str | Path | None = None,
    tolerance: float = 1e-3,
    prune: float | None = None,
) -> ExportReport:
    """Exports a detector, runs it beside PyTorch on an image, and writes it if they agree.

    What is exported is the fused copy (:func:`mmdet_hadaptive.deploy.fuse_for_inference`); it is
    compared with the detector itself, after it was pruned if that is asked for.

    The file's ``metadata_props`` hold, each in JSON: ``mode``, ``classes``, the attributes of
    :class:`Preprocessing`, of mode 'nms' ``score_threshold``, ``iou_threshold``,
    ``candidates_per_level`` and ``max_detections``, and last ``sha256``, of all that comes before
    it in the file.

    Mode 'nms' gives ``boxes`` (B, K, 4), (x1, y1, x2, y2) in pixels of the input, ``scores``
    (B, K) in falling order and ``labels`` (B, K), int64; rows without a detection have the score
    0 and the label -1. For the other modes see :class:`ExportNetwork`.

    Args:
        config: The detector's. Its test pipeline is changed if ``size`` is given.
        checkpoint: Weights for all of the detector.
        out: The file to write.
        mode: One of :data:`MODES`.
        batch: Images at a time; None for any number.
        normalize: Whether the model takes pixel values (0 to 255, BGR) and normalises itself.
        exporter: 'dynamo' or 'torchscript', one of PyTorch's two.
        opset: Version of ONNX's operators.
        size: Height and width to resize to, instead of the test pipeline's.
        image: Image for the comparison; by default the first of the config's test data.
        tolerance: Largest difference that is accepted; an infinite one also accepts that nothing
            is detected, and nothing compared.
        prune: How much mAP may be lost on the config's validation data by removing products and
            freezing selections (:func:`mmdet_hadaptive.deploy.prune_products`), measured on
            training images; None for a detector with all of its products.

    Returns:
        What was written.

    Raises:
        ExportError: If the detector cannot be exported, the checkpoint or the image cannot be
            used, it cannot be pruned, or the outputs differ. Nothing is written.
        OSError: If a file cannot be read or written.
    """
    if exporter not in EXPORTERS:
        raise ExportError(f'exporter must be one of {", ".join(EXPORTERS)}, got {exporter!r}')
    if batch is not None and batch < 1:
        raise ExportError(f'the batch must be at least 1, or None for a dynamic one, got {batch}')
    if size is not None:
        set_input_size(config, *size)
    preprocessing = Preprocessing.from_config(config)
    detector, classes = load_detector(config, checkpoint)
    pruning = None
    if prune is not None:
        detector, pruning = _prune(config, detector, prune)
    network = ExportNetwork(fuse_for_inference(detector), mode, preprocessing, normalize)

    image = str(image or first_test_image(config))
    pixels = run_pipeline(config, image)
    # Two different images, so that a batch that is mixed up is found out.
    images = [(pixels, np.ascontiguousarray(pixels[:, ::-1]))[i % 2] for i in range(batch or 2)]
    inputs = np.stack([network.preprocessing.canvas(x) for x in images])

    model = convert_to_onnx(network, torch.from_numpy(inputs), batch is None, exporter, opset)
    metadata = dict(mode=mode, classes=classes, **network.preprocessing.metadata())
    if mode == 'nms':
        metadata |= append_nms(model, detector.bbox_head.test_cfg, network.num_candidates)
    content = encode_model(model, metadata)

    session = create_session(content)
    actual = session.run(None, {session.get_inputs()[0].name: inputs})
    expected = run_detector(detector, mode, preprocessing, images)
    difference = compare_outputs(expected, actual, image, tolerance)
    write_whole(content, out)
    return ExportReport(
        file=out,
        input_shape=tuple(session.get_inputs()[0].shape),
        output_shapes={output.name: tuple(output.shape) for output in session.get_outputs()},
        image=image,
        difference=difference,
        pruning=pruning,
    )


def _prune(
    config: Config, detector: BaseModel, tolerance: float
) -> tuple[BaseModel, PruningReport]:
    try:
        statistics = collect_on_training_images(detector, config, _NUM_IMAGES)
        return prune_products(detector, statistics, make_evaluation(config), tolerance)
    except ValueError as error:
        raise ExportError(f'the detector cannot be pruned: {error}') from error
