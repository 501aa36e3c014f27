"""Decodes the outputs of a head to boxes and scores, and selects candidates."""

from collections.abc import Sequence

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmengine.config import ConfigDict
from torch import Tensor, nn


class BoxDecoder(nn.Module):
    """Decodes boxes with the head's own ``prior_generator`` and ``bbox_coder``.

    Args:
        head: A head that :func:`check_support` accepts.
        input_size: Height and width of the images in pixels. Boxes are clipped to them.
        map_sizes: Height and width of the outputs of each level.

    Attributes:
        num_priors: The number of priors of each level. N is their sum.
    """

    def __init__(
        self,
        head: BaseDenseHead,
        input_size: tuple[int, int],
        map_sizes: Sequence[tuple[int, int]],
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.use_sigmoid = head.use_sigmoid_cls
        self.bbox_coder = head.bbox_coder
        self.strides = [stride[0] for stride in head.prior_generator.strides]
        # For heads that predict a distribution of each distance.
        self.integral = getattr(head, 'integral', None)
        # The input has a fixed size, so priors are constants.
        priors = head.prior_generator.grid_priors(map_sizes, device='cpu')
        self.num_priors = [len(level) for level in priors]
        if self.integral is not None:
            priors = [head.anchor_center(level) for level in priors]
        self.register_buffer('priors', torch.cat(priors))

    def forward(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        score_factors: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Decodes the outputs of the head. Each level has the shape (B, A * c, H, W).

        Returns:
            Boxes (B, N, 4), (x1, y1, x2, y2) in pixels of the input. Scores (B, N, classes).
            Factors of the scores (B, N, 1), if the head has them.
        """
        scores = self._flatten(cls_scores)
        # With softmax, the last class is the background.
        scores = scores.sigmoid() if self.use_sigmoid else scores.softmax(-1)[..., :-1]
        factors = self._flatten(score_factors).sigmoid() if score_factors else None
        return self._decode(bbox_preds), scores, factors

    def _decode(self, bbox_preds: list[Tensor]) -> Tensor:
        if self.integral is None:
            offsets = self._flatten(bbox_preds)
        else:
            distances = [
                self.integral(level.permute(0, 2, 3, 1)) * stride
                for level, stride in zip(bbox_preds, self.strides, strict=True)
            ]
            levels = zip(distances, self.num_priors, strict=True)
            offsets = torch.cat([level.reshape(-1, n, 4) for level, n in levels], dim=1)
        # Not all of MMDetection's coders take a batch, and none can clip during an export.
        priors = self.priors.repeat(offsets.shape[0], 1)
        boxes = self.bbox_coder.decode(priors, offsets.reshape(-1, offsets.shape[-1]))
        boxes = boxes.reshape(-1, *self.priors.shape[:1], 4)
        if self.bbox_coder.clip_border:
            height, width = self.input_size
            boxes = boxes.clamp(min=0).minimum(boxes.new_tensor([width, height] * 2))
        return boxes

    def _flatten(self, levels: list[Tensor]) -> Tensor:
        """Reshapes the levels' outputs (B, A * c, H, W) to (B, N, c)."""
        return torch.cat(
            [
                level.permute(0, 2, 3, 1).reshape(
                    -1, n, level.shape[1] * level.shape[2] * level.shape[3] // n
                )
                for level, n in zip(levels, self.num_priors, strict=True)
            ],
            dim=1,
        )


class CandidateSelection(nn.Module):
    """Selects the candidates for non-maximum suppression as MMDetection does.

    These are the ``nms_pre`` best pairs of prior and class in each level. The score becomes zero if
    it does not exceed ``score_thr``, or if the box has no area and ``min_bbox_size`` is 0.

    Args:
        num_priors: The number of priors of each level.
        num_classes: The number of classes.
        test_cfg: The head's ``test_cfg``.

    Attributes:
        min_side: ``min_bbox_size``. If it is above 0, it is in pixels of the image before the
            resizing. The caller must apply it, because the network does not know this size.
        num_candidates: The number of candidates of each level. M is their sum.
    """

    def __init__(self, num_priors: Sequence[int], num_classes: int, test_cfg: ConfigDict) -> None:
        super().__init__()
        self.num_priors = list(num_priors)
        self.min_score = test_cfg.get('score_thr', 0)
        self.min_side = test_cfg.get('min_bbox_size', -1)
        most = test_cfg.get('nms_pre', -1)
        pairs = [n * num_classes for n in num_priors]
        self.num_candidates = [min(most, n) if most > 0 else n for n in pairs]

    def forward(
        self, boxes: Tensor, scores: Tensor, factors: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Selects among the outputs of :class:`BoxDecoder`.

        Returns:
            Boxes (B, M, 4). Scores (B, M), multiplied by their factors. Labels (B, M), int64. Class
            scores (B, classes, M), with the score in the row of its label and zero elsewhere.
        """
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
        valid = scores > self.min_score
        if factors is not None:
            scores = scores * factors[..., 0].gather(1, priors)
        if self.min_side >= 0:
            valid = valid & ((boxes[..., 2:] - boxes[..., :2]) > 0).all(-1)
        scores = torch.where(valid, scores, 0.0)
        classes = torch.arange(num_classes, device=labels.device)[:, None]
        class_scores = torch.where(labels[:, None] == classes, scores[:, None], 0.0)
        return boxes, scores, labels, class_scores
