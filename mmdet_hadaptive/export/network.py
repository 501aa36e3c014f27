"""The network that is exported: a detector, from its input to what a mode asks for."""

from typing import Literal, get_args

import torch
from mmdet.models.dense_heads import GFLHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector
from mmengine.model import BaseModel
from torch import Tensor, nn

from .errors import ExportError
from .preprocessing import Preprocessing

Mode = Literal['backbone', 'raw', 'decoded', 'nms']
MODES: tuple[Mode, ...] = get_args(Mode)

_RAW_NAMES = ('cls_score', 'bbox_pred', 'score_factor')
# How the predictions of a level become boxes and scores is written in these two.
_KNOWN_DECODING = (BaseDenseHead._predict_by_feat_single, GFLHead._predict_by_feat_single)
_KNOWN_NMS = {'type', 'iou_threshold', 'split_thr'}


class ExportNetwork(nn.Module):
    """A detector in eval mode, as one network with one input.

    Boxes are decoded by the head's own ``prior_generator`` and ``bbox_coder``.

    | mode | outputs |
    |---|---|
    | backbone | ``feature_0``, ...: (B, C, H, W) |
    | raw | ``cls_score_0``, ..., ``bbox_pred_0``, ..., and ``score_factor_0``, ... of heads that \
have them: (B, C, H, W) as the head gives them |
    | decoded | ``boxes`` (B, N, 4), (x1, y1, x2, y2) in pixels of the input, and ``scores`` \
(B, N, classes), for all N priors |
    | nms | what :func:`append_nms` needs: ``candidate_boxes`` (B, M, 4), ``candidate_scores`` \
(B, M), ``candidate_labels`` (B, M) in int64, and ``class_scores`` (B, classes, M), the score in \
the row of its label and zero elsewhere |

    The candidates of ``nms`` are those of MMDetection: of each level the ``nms_pre`` best pairs
    of prior and class. What does not exceed ``score_thr`` scores zero.

    Args:
        detector: Its mode becomes eval.
        mode: One of :data:`MODES`.
        preprocessing: Of the config.
        normalize: Whether the network orders and normalises the channels itself.

    Attributes:
        output_names: As in the table.
        num_candidates: Of mode 'nms', how many each level has.

    Raises:
        ExportError: If the detector or its head cannot be exported in this mode.
    """

    def __init__(
        self,
        detector: BaseModel,
        mode: Mode,
        preprocessing: Preprocessing,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        _check(detector, mode)
        self.detector = detector
        self.mode = mode
        self.input_size = preprocessing.input_size
        self.normalize = normalize
        self.swap_channels = preprocessing.channel_order == 'RGB'
        self.register_buffer('mean', torch.tensor(preprocessing.mean).view(3, 1, 1))
        self.register_buffer('std', torch.tensor(preprocessing.std).view(3, 1, 1))
        # All of it: PyTorch's exporters put a network back into the mode that it itself was in.
        self.eval()
        with torch.no_grad():
            outputs = self._detect(torch.zeros(1, 3, *self.input_size))
            if mode == 'backbone':
                self.output_names = [f'feature_{i}' for i in range(len(outputs))]
            elif mode == 'raw':
                if len(outputs) > len(_RAW_NAMES):
                    raise ExportError(
                        f'{type(detector.bbox_head).__name__} has {len(outputs)} kinds of outputs, '
                        f"at most {len(_RAW_NAMES)} are known: export with mode 'backbone'"
                    )
                self.output_names = [
                    f'{name}_{i}'
                    for name, levels in zip(_RAW_NAMES, outputs, strict=False)
                    for i in range(len(levels))
                ]
            else:
                self.output_names = ['boxes', 'scores']
                # The input has one size, so that priors are constants.
                priors = detector.bbox_head.prior_generator.grid_priors(
                    [level.shape[-2:] for level in outputs[0]], device='cpu'
                )
                self.num_priors = [len(level) for level in priors]
                if hasattr(detector.bbox_head, 'integral'):
                    priors = [detector.bbox_head.anchor_center(level) for level in priors]
                self.register_buffer('priors', torch.cat(priors))
            if mode == 'nms':
                most = detector.bbox_head.test_cfg.get('nms_pre', -1)
                pairs = [n * detector.bbox_head.num_classes for n in self.num_priors]
                self.num_candidates = [min(most, n) if most > 0 else n for n in pairs]
                self.output_names = [
                    'candidate_boxes',
                    'candidate_scores',
                    'candidate_labels',
                    'class_scores',
                ]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Runs the network.

        Args:
            images: (B, 3, H, W), float32, of the size of the preprocessing; pixel values (0 to
                255, BGR) if the network normalises, else normalised.

        Returns:
            The outputs, in the order of :attr:`output_names`.
        """
        if self.normalize:
            images = ((images.flip(1) if self.swap_channels else images) - self.mean) / self.std
        outputs = self._detect(images)
        if self.mode == 'backbone':
            return tuple(outputs)
        if self.mode == 'raw':
            return tuple(level for levels in outputs for level in levels)
        boxes, scores, factors = self._decode(*outputs)
        if self.mode == 'nms':
            return self._candidates(boxes, scores, factors)
        return boxes, scores if factors is None else scores * factors

    def _detect(self, images: Tensor) -> tuple:
        if self.mode == 'backbone':
            return self.detector.backbone(images)
        return self.detector(images, mode='tensor')

    def _decode(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        score_factors: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Boxes (B, N, 4), scores (B, N, classes) and factors of the scores (B, N, 1)."""
        head = self.detector.bbox_head
        scores = self._flatten(cls_scores)
        # Where classes exclude each other, the last one is the background.
        scores = scores.sigmoid() if head.use_sigmoid_cls else scores.softmax(-1)[..., :-1]
        if hasattr(head, 'integral'):
            distances = [
                head.integral(level.permute(0, 2, 3, 1)) * stride[0]
                for level, stride in zip(bbox_preds, head.prior_generator.strides, strict=True)
            ]
            batch = zip(distances, self.num_priors, strict=True)
            offsets = torch.cat([level.reshape(-1, n, 4) for level, n in batch], dim=1)
        else:
            offsets = self._flatten(bbox_preds)
        # MMDetection's coders know a batch only in part, and clipping during an export not at all.
        priors = self.priors.repeat(offsets.shape[0], 1)
        boxes = head.bbox_coder.decode(priors, offsets.reshape(-1, offsets.shape[-1]))
        boxes = boxes.reshape(-1, *self.priors.shape[:1], 4)
        if head.bbox_coder.clip_border:
            height, width = self.input_size
            boxes = boxes.clamp(min=0).minimum(boxes.new_tensor([width, height] * 2))
        factors = self._flatten(score_factors).sigmoid() if score_factors else None
        return boxes, scores, factors

    def _flatten(self, levels: list[Tensor]) -> Tensor:
        """(B, A * c, H, W) of each level as (B, N, c)."""
        return torch.cat(
            [
                level.permute(0, 2, 3, 1).reshape(
                    -1, n, level.shape[1] * level.shape[2] * level.shape[3] // n
                )
                for level, n in zip(levels, self.num_priors, strict=True)
            ],
            dim=1,
        )

    def _candidates(
        self, boxes: Tensor, scores: Tensor, factors: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        settings = self.detector.bbox_head.test_cfg
        num_classes = scores.shape[-1]
        kept, indices, start = [], [], 0
        levels = scores.split(self.num_priors, dim=1)
        for level, count in zip(levels, self.num_candidates, strict=True):
            values, index = level.flatten(1).topk(count, dim=1)
            kept.append(values)
            indices.append(index + start)
            start += level.shape[1] * num_classes
        scores, indices = torch.cat(kept, dim=1), torch.cat(indices, dim=1)
        priors, labels = indices // num_classes, indices % num_classes
        boxes = boxes.gather(1, priors[..., None].expand(-1, -1, 4))
        valid = scores > settings.get('score_thr', 0)
        if factors is not None:
            scores = scores * factors[..., 0].gather(1, priors)
        smallest = settings.get('min_bbox_size', -1)
        if smallest >= 0:
            valid = valid & ((boxes[..., 2:] - boxes[..., :2]) > smallest).all(-1)
        scores = torch.where(valid, scores, 0.0)
        classes = torch.arange(num_classes, device=labels.device)[:, None]
        class_scores = torch.where(labels[:, None] == classes, scores[:, None], 0.0)
        return boxes, scores, labels, class_scores


def _check(detector: BaseModel, mode: Mode) -> None:
    """Raises an error if the detector cannot be exported in this mode."""
    if mode not in MODES:
        raise ExportError(f'mode must be one of {", ".join(MODES)}, got {mode!r}')
    if mode == 'backbone':
        return
    name = type(detector).__name__
    if not isinstance(detector, SingleStageDetector):
        raise ExportError(
            f"{name} is not one of MMDetection's single-stage detectors, which are what can be "
            "exported as a whole: export its backbone, with mode 'backbone'"
        )
    if mode == 'raw':
        return
    head = detector.bbox_head
    name = type(head).__name__
    usual = isinstance(head, BaseDenseHead) and all(
        getattr(type(head), method) is getattr(BaseDenseHead, method)
        for method in ('predict', 'predict_by_feat', '_bbox_post_process')
    )
    if not usual or type(head)._predict_by_feat_single not in _KNOWN_DECODING:
        raise ExportError(
            f'{name} decodes boxes in a way of its own, which the export does not know: use mode '
            "'raw', and decode its outputs in your program"
        )
    if not hasattr(head, 'loss_cls'):
        raise ExportError(
            f'{name} cannot predict, it has no loss_cls: use SSDLiteHead, which takes the same '
            'arguments'
        )
    if getattr(head.loss_cls, 'custom_cls_channels', False):
        raise ExportError(
            f'{name} computes scores by {type(head.loss_cls).__name__}, which the export does not '
            "know: use mode 'raw'"
        )
    if mode == 'decoded':
        return
    settings = head.test_cfg or {}
    nms = settings.get('nms') or {}
    unknown = nms.keys() - _KNOWN_NMS
    if nms.get('type') != 'nms' or unknown:
        raise ExportError(
            f'model.test_cfg.nms is {dict(nms)}; ONNX has only the ordinary one: use '
            "dict(type='nms', iou_threshold=...), or mode 'decoded'"
        )
