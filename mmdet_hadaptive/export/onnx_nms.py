"""Non-maximum suppression in ONNX's operators."""

from collections.abc import Mapping
from typing import Any

import onnx
from mmengine.config import ConfigDict

from .network import ExportNetwork

# Class scores without a candidate are zero. Scores of suppressed candidates become zero, so that
# all images have the same number of rows. There are two zeros, because converters to half precision
# do not convert NonMaxSuppression and its inputs.
_NMS = """
nms (float[B, M, 4] candidate_boxes, float[B, M] candidate_scores,
     int64[B, M] candidate_labels, float[B, C, M] class_scores)
    => (float[{batch}, {limit}, 4] boxes, float[{batch}, {limit}] scores,
        int64[{batch}, {limit}] labels)
    <int64 nms_limit = {{{limit}}}, float nms_iou_threshold = {{{iou_threshold}}},
     float nms_lowest = {{0}}, float nms_zero = {{0}}, int64[2] nms_image_and_box = {{0, 2}},
     int64[1] nms_k = {{{limit}}}, int64[1] nms_last = {{-1}}, int64 nms_no_label = {{-1}}>
{{
    nms_found = NonMaxSuppression(candidate_boxes, class_scores, nms_limit, nms_iou_threshold,
                                  nms_lowest)
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


def describe_nms(test_cfg: ConfigDict, network: ExportNetwork) -> dict[str, Any]:
    """Describes the selection of detections for the metadata.

    Args:
        test_cfg: The head's ``test_cfg``, with ``nms.iou_threshold``.
        network: The network, with the outputs 'detections'.

    Returns:
        ``score_threshold``, ``iou_threshold``, ``candidates_per_level`` and ``max_detections``. If
        the network does not select candidates, also ``priors_per_level`` and ``min_box_side``.
    """
    most = test_cfg.get('max_per_img', -1)
    settings = dict(
        score_threshold=test_cfg.get('score_thr', 0),
        iou_threshold=float(test_cfg.nms.iou_threshold),
        candidates_per_level=test_cfg.get('nms_pre', -1),
        max_detections=min(most, network.num_candidates) if most > 0 else network.num_candidates,
    )
    if not network.select:
        settings |= dict(
            priors_per_level=network.selection.num_priors,
            min_box_side=network.selection.min_side,
        )
    return settings


def append_nms(model: onnx.ModelProto, settings: Mapping[str, Any]) -> None:
    """Appends non-maximum suppression to a network with the outputs 'detections'.

    Args:
        model: A model from an :class:`ExportNetwork`. Its outputs become ``boxes``, ``scores`` and
            ``labels``, see :func:`export_detector`.
        settings: The result of :func:`describe_nms`.
    """
    batch = model.graph.output[0].type.tensor_type.shape.dim[0]
    appended = onnx.parser.parse_graph(
        _NMS.format(
            batch=batch.dim_param or batch.dim_value,
            limit=settings['max_detections'],
            iou_threshold=settings['iou_threshold'],
        )
    )
    for number, node in enumerate(appended.node):
        # Converters to half precision name new nodes after the node that they are for.
        node.name = f'nms_{number}'
    model.graph.node.extend(appended.node)
    model.graph.initializer.extend(appended.initializer)
    del model.graph.output[:]
    model.graph.output.extend(appended.output)
