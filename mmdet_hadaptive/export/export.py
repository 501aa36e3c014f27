"""Writes a detector as an ONNX file that is proven against PyTorch."""

import io
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnx
import onnxruntime
import torch
from mmcv.transforms import Compose
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import Tensor

from ..deploy import fuse_for_inference
from ..runtime.files import write_whole
from .errors import ExportError
from .network import ExportNetwork, Mode
from .preprocessing import Preprocessing, set_input_size

Exporter = Literal['dynamo', 'torchscript']
EXPORTERS: tuple[Exporter, ...] = get_args(Exporter)

# The class scores are zero wherever there is no candidate; the scores of what is suppressed become
# zero, so that every image gets the same number of rows.
_NMS = """
nms (float[B, M, 4] candidate_boxes, float[B, M] candidate_scores,
     int64[B, M] candidate_labels, float[B, C, M] class_scores)
    => (float[{batch}, {limit}, 4] boxes, float[{batch}, {limit}] scores,
        int64[{batch}, {limit}] labels)
    <int64 nms_limit = {{{limit}}}, float nms_iou_threshold = {{{iou_threshold}}},
     float nms_zero = {{0}}, int64[2] nms_image_and_box = {{0, 2}}, int64[1] nms_k = {{{limit}}},
     int64[1] nms_last = {{-1}}, int64 nms_no_label = {{-1}}>
{{
    nms_found = NonMaxSuppression(candidate_boxes, class_scores, nms_limit, nms_iou_threshold,
                                  nms_zero)
    nms_places = Gather <axis = 1> (nms_found, nms_image_and_box)
    nms_scores = GatherND(candidate_scores, nms_places)
    nms_none = Mul(candidate_scores, nms_zero)
    nms_kept = ScatterND(nms_none, nms_places, nms_scores)
    scores, nms_index = TopK(nms_kept, nms_k)
    nms_rows = Unsqueeze(nms_index, nms_last)
    boxes = GatherND <batch_dims = 1> (candidate_boxes, nms_rows)
    nms_labels = GatherElements <axis = 1> (candidate_labels, nms_index)
    nms_is_found = Greater(scores, nms_zero)
    labels = Where(nms_is_found, nms_labels, nms_no_label)
}}
"""


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
    """

    file: Path
    input_shape: tuple[int | str, ...]
    output_shapes: dict[str, tuple[int | str, ...]]
    image: str
    difference: float


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
) -> ExportReport:
    """Exports a detector, runs it beside PyTorch on an image, and writes it if they agree.

    What is exported is the fused copy (:func:`mmdet_hadaptive.deploy.fuse_for_inference`); it is
    compared with the detector itself.

    The file's ``metadata_props`` hold, each in JSON: ``mode``, ``classes``, the attributes of
    :class:`Preprocessing`, and of mode 'nms' ``score_threshold``, ``iou_threshold``,
    ``candidates_per_level`` and ``max_detections``.

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

    Returns:
        What was written.

    Raises:
        ExportError: If the detector cannot be exported or the outputs differ. Nothing is written.
        OSError: If the file cannot be written.
    """
    if exporter not in EXPORTERS:
        raise ExportError(f'exporter must be one of {", ".join(EXPORTERS)}, got {exporter!r}')
    if batch is not None and batch < 1:
        raise ExportError(f'the batch must be at least 1, or None for a dynamic one, got {batch}')
    if size is not None:
        set_input_size(config, *size)
    preprocessing = Preprocessing.from_config(config)
    detector, classes = _load_detector(config, checkpoint)
    network = ExportNetwork(fuse_for_inference(detector), mode, preprocessing, normalize)
    image = str(image or _first_image(config))
    resized = run_pipeline(config, image)
    remaining = preprocessing.outside() if normalize else preprocessing
    # Two different images, so that a batch that is mixed up is found out.
    examples = [remaining.canvas(x) for x in (resized, np.ascontiguousarray(resized[:, ::-1]))]
    inputs = np.stack([examples[i % 2] for i in range(batch or 2)])

    model = _convert(network, torch.from_numpy(inputs), batch is None, exporter, opset)
    metadata = dict(mode=json.dumps(mode), classes=json.dumps(classes), **remaining.metadata())
    if mode == 'nms':
        settings = detector.bbox_head.test_cfg
        candidates = sum(network.num_candidates)
        limit = settings.get('max_per_img', -1)
        limit = min(limit, candidates) if limit > 0 else candidates
        append_nms(model, settings.nms.get('iou_threshold', 0.5), limit)
        metadata.update(
            score_threshold=json.dumps(settings.get('score_thr', 0)),
            iou_threshold=json.dumps(settings.nms.iou_threshold),
            candidates_per_level=json.dumps(settings.get('nms_pre', -1)),
            max_detections=json.dumps(limit),
        )
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()

    session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])
    actual = session.run(None, {session.get_inputs()[0].name: inputs})
    expected = _expected(detector, mode, preprocessing, resized, len(inputs))
    if mode == 'nms':
        difference = _detection_difference(expected, actual)
        nothing = not any(map(len, expected)) and (actual[-1] < 0).all()
        if nothing and np.isfinite(tolerance):
            raise ExportError(
                f'{image}: neither PyTorch nor ONNX Runtime detects anything, nothing can be '
                'compared, and nothing is written: name an image with objects (--image), or accept '
                'it with --tolerance inf'
            )
    else:
        difference = max(float(np.abs(e - a).max()) for e, a in zip(expected, actual, strict=True))
    if not difference <= tolerance:
        raise ExportError(
            f'ONNX Runtime and PyTorch differ by {difference:.2e} on {image}, more than '
            f'{tolerance:.0e}, and nothing is written: see whether another image (--image), '
            'exporter (--exporter) or opset (--opset) changes that. Where scores nearly tie, the '
            'selection of channels or of boxes may differ by chance; --tolerance accepts it'
        )
    write_whole(content, out)
    return ExportReport(
        file=out,
        input_shape=tuple(session.get_inputs()[0].shape),
        output_shapes={output.name: tuple(output.shape) for output in session.get_outputs()},
        image=image,
        difference=difference,
    )


def append_nms(model: onnx.ModelProto, iou_threshold: float, limit: int) -> None:
    """Appends non-maximum suppression to a network of mode 'nms'.

    Args:
        model: Exported from an :class:`ExportNetwork`; its outputs become ``boxes``, ``scores``
            and ``labels``, see :func:`export_onnx`.
        iou_threshold: Of two boxes of a class that overlap more, the one with the lower score goes.
        limit: Detections for each image, at most the number of candidates.
    """
    batch = model.graph.output[0].type.tensor_type.shape.dim[0]
    appended = onnx.parser.parse_graph(
        _NMS.format(
            batch=batch.dim_param or batch.dim_value, limit=limit, iou_threshold=iou_threshold
        )
    )
    model.graph.node.extend(appended.node)
    model.graph.initializer.extend(appended.initializer)
    del model.graph.output[:]
    model.graph.output.extend(appended.output)


def _load_detector(config: Config, checkpoint: str | Path) -> tuple[BaseModel, list[str]]:
    """The detector with its weights, in eval mode, and the names of its classes."""
    init_default_scope(config.get('default_scope', 'mmdet'))
    detector = revert_sync_batchnorm(MODELS.build(config.model)).eval()
    try:
        # MMEngine only logs which weights are missing unless it is told to be strict.
        loaded = load_checkpoint(detector, str(checkpoint), map_location='cpu', strict=True)
    except RuntimeError as error:
        raise ExportError(
            f'{checkpoint} does not fit the config, export it with the one that it was trained '
            f'with: {error}'
        ) from error
    classes = loaded.get('meta', {}).get('dataset_meta', {}).get('classes')
    if classes is None:
        dataset = {**config.test_dataloader.dataset, 'lazy_init': True}
        classes = DATASETS.build(dataset).metainfo['classes']
    num_classes = getattr(getattr(detector, 'bbox_head', None), 'num_classes', len(classes))
    if num_classes != len(classes):
        raise ExportError(
            f'the head has {num_classes} classes, but {len(classes)} are named: {classes}. Name '
            'those that it was trained with in test_dataloader.dataset.metainfo'
        )
    return detector, list(classes)


def _first_image(config: Config) -> str:
    try:
        return DATASETS.build(config.test_dataloader.dataset).get_data_info(0)['img_path']
    except (OSError, ValueError, IndexError) as error:
        raise ExportError(
            f"the config's test data has no image for the comparison, name one with --image: "
            f'{error}'
        ) from error


def run_pipeline(config: Config, image: str) -> np.ndarray:
    """Runs the test pipeline on an image.

    Args:
        config: A detector's.
        image: Its file.

    Returns:
        The image as the data preprocessor gets it: (H, W, 3), uint8, BGR.

    Raises:
        ExportError: If there is no such file.
    """
    if not Path(image).is_file():
        raise ExportError(f'{image}: no such image, name another with --image')
    pipeline = config.test_dataloader.dataset.pipeline
    transforms = Compose([t for t in pipeline if t['type'] != 'LoadAnnotations'])
    return transforms(dict(img_path=image, img_id=0))['inputs'].permute(1, 2, 0).numpy()


def _convert(
    network: ExportNetwork, inputs: Tensor, dynamic: bool, exporter: Exporter, opset: int
) -> onnx.ModelProto:
    names = dict(input_names=['images'], output_names=network.output_names, opset_version=opset)
    with warnings.catch_warnings():
        # About comparisons of shapes, which are fixed here, and PyTorch's own deprecations.
        warnings.simplefilter('ignore')
        try:
            if exporter == 'dynamo':
                batch = ({0: torch.export.Dim('batch')},) if dynamic else None
                program = torch.onnx.export(
                    network, (inputs,), dynamo=True, dynamic_shapes=batch, verbose=False, **names
                )
                model = program.model_proto
            else:
                batch = {name: {0: 'batch'} for name in ('images', *network.output_names)}
                buffer = io.BytesIO()
                torch.onnx.export(
                    network,
                    (inputs,),
                    buffer,
                    dynamo=False,
                    dynamic_axes=batch if dynamic else None,
                    **names,
                )
                model = onnx.load_from_string(buffer.getvalue())
        except (RuntimeError, ValueError) as error:
            raise ExportError(
                f"PyTorch's {exporter} exporter fails with opset {opset}: {error}. Try another "
                'exporter (--exporter) or opset (--opset)'
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


def _expected(
    detector: BaseModel, mode: Mode, preprocessing: Preprocessing, resized: np.ndarray, batch: int
) -> list:
    """PyTorch's outputs, with MMDetection's own preprocessing; of 'nms' its detections."""
    images = [torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))]
    images.append(images[0].flip(-1))
    data = dict(inputs=[images[i % 2] for i in range(batch)], data_samples=None)
    with torch.no_grad():
        inputs = detector.data_preprocessor(data)['inputs']
        height, width = (
            edge - given
            for edge, given in zip(preprocessing.input_size, inputs.shape[2:], strict=True)
        )
        value = detector.data_preprocessor.pad_value
        inputs = torch.nn.functional.pad(inputs, (0, width, 0, height), value=value)
        if mode == 'nms':
            samples = [
                DetDataSample(metainfo=dict(img_shape=preprocessing.input_size))
                for _ in range(batch)
            ]
            return [s.pred_instances for s in detector.predict(inputs, samples, rescale=False)]
        reference = ExportNetwork(detector, mode, preprocessing)
        return [output.numpy() for output in reference(inputs)]


def _detection_difference(expected: list, actual: list[np.ndarray]) -> float:
    """The largest distance from a detection to the nearest of its class on the other side."""
    largest = 0.0
    for instances, boxes, scores, labels in zip(expected, *actual, strict=True):
        found = labels >= 0
        ours = np.concatenate([boxes, scores[:, None]], axis=1)[found]
        theirs = torch.cat([instances.bboxes, instances.scores[:, None]], dim=1).numpy()
        distances = np.abs(ours[:, None] - theirs[None]).max(-1)
        distances[labels[found][:, None] != instances.labels.numpy()] = np.inf
        for axis in (0, 1):
            if distances.shape[1 - axis]:
                largest = max(largest, float(distances.min(axis, initial=np.inf).max()))
    return largest
