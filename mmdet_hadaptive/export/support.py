"""Checks which detectors can be exported, and with which outputs."""

from typing import Literal, get_args

from mmdet.models.dense_heads import GFLHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector
from mmengine.config import ConfigDict
from mmengine.model import BaseModel

from hadaptive_runtime import ExportError

Outputs = Literal['features', 'head', 'boxes', 'detections']
OUTPUTS: tuple[Outputs, ...] = get_args(Outputs)

# These two methods compute boxes and scores from the predictions of a level.
_SUPPORTED_DECODING = (BaseDenseHead._predict_by_feat_single, GFLHead._predict_by_feat_single)
_NMS_OPTIONS = {'type', 'iou_threshold', 'split_thr'}


def check_support(detector: BaseModel, outputs: Outputs) -> None:
    """Checks that a detector can be exported with certain outputs.

    Args:
        detector: Any detector of MMDetection.
        outputs: One of :data:`OUTPUTS`.

    Raises:
        ExportError: If it cannot be exported with them.
    """
    if outputs not in OUTPUTS:
        raise ExportError(f'outputs must be one of {", ".join(OUTPUTS)}, got {outputs!r}')
    if outputs == 'features':
        return
    if not isinstance(detector, SingleStageDetector):
        raise ExportError(
            f"{type(detector).__name__} is not one of MMDetection's single-stage detectors, which "
            'are what can be exported as a whole: export its backbone, with --outputs features'
        )
    if outputs == 'head':
        return
    _check_head(detector.bbox_head)
    if outputs == 'detections':
        _check_nms((detector.bbox_head.test_cfg or {}).get('nms') or {})


def _check_head(head: BaseDenseHead) -> None:
    name = type(head).__name__
    usual = isinstance(head, BaseDenseHead) and all(
        getattr(type(head), method) is getattr(BaseDenseHead, method)
        for method in ('predict', 'predict_by_feat', '_bbox_post_process')
    )
    if not usual or type(head)._predict_by_feat_single not in _SUPPORTED_DECODING:
        raise ExportError(
            f'{name} decodes boxes in a way of its own, which the export does not know: use '
            '--outputs head, and decode them in your program'
        )
    if not hasattr(head, 'loss_cls'):
        raise ExportError(
            f'{name} cannot predict, it has no loss_cls: use PatchedSSDHead, which takes the same '
            'arguments'
        )
    if getattr(head.loss_cls, 'custom_cls_channels', False):
        raise ExportError(
            f'{name} computes scores by {type(head.loss_cls).__name__}, which the export does not '
            'know: use --outputs head'
        )


def _check_nms(nms: ConfigDict) -> None:
    if nms.get('type') != 'nms' or nms.keys() - _NMS_OPTIONS:
        raise ExportError(
            f'model.test_cfg.nms is {dict(nms)}; ONNX has only the ordinary one: use '
            "dict(type='nms', iou_threshold=...), or --outputs boxes"
        )
    threshold = nms.get('iou_threshold')
    if not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
        raise ExportError(
            f'model.test_cfg.nms.iou_threshold must be in 0..1, got {threshold}; MMDetection has '
            'no default for it: set it, with --cfg-options model.test_cfg.nms.iou_threshold=0.6'
        )
