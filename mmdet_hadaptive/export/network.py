"""The exported network: a detector from its input to the chosen outputs."""

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from hadaptive_runtime import ExportError, Preprocessing
from hadaptive_runtime.errors import describe_error

from .decoding import BoxDecoder, CandidateSelection
from .support import Outputs, check_support

_RAW_NAMES = ('cls_score', 'bbox_pred', 'score_factor')


class ExportNetwork(nn.Module):
    """A detector in eval mode, as one network with one input.

    | outputs | names and shapes |
    |---|---|
    | features | ``feature_0``, ...: (B, C, H, W) |
    | head | ``cls_score_0``, ..., ``bbox_pred_0``, ..., and ``score_factor_0``, ... of heads that \
have them: (B, C, H, W) as the head gives them |
    | boxes | ``boxes`` (B, N, 4), (x1, y1, x2, y2) in pixels of the input, and ``scores`` \
(B, N, classes), for all N priors |
    | detections | the inputs of :func:`append_nms`: ``candidate_boxes`` (B, M, 4), \
``candidate_scores`` (B, M), ``candidate_labels`` (B, M) in int64, and ``class_scores`` \
(B, classes, M), as :class:`CandidateSelection` gives them |

    Args:
        detector: The detector. It is put into eval mode.
        outputs: One of :data:`OUTPUTS`.
        preprocessing: The config's preprocessing.
        normalize: Whether the network orders and normalises the channels itself.
        select: Whether a network with the outputs 'detections' selects the candidates. It cannot if
            ``min_bbox_size`` is above 0, because it does not know the size of the image. Then its
            outputs are those of 'boxes', and ``factors`` (B, N, 1) if the head has them. The scores
            are not yet multiplied by these.

    Attributes:
        select: Whether it selects the candidates.
        preprocessing: The remaining preprocessing before the network.
        output_names: The names of the outputs, as in the table.
        num_candidates: M, the number of candidates for 'detections'.

    Raises:
        ExportError: If the detector or its head cannot be exported with these outputs, or cannot
            run on images of this size.
    """

    def __init__(
        self,
        detector: BaseModel,
        outputs: Outputs,
        preprocessing: Preprocessing,
        normalize: bool = False,
        select: bool = True,
    ) -> None:
        super().__init__()
        check_support(detector, outputs)
        self.outputs = outputs
        self.select = outputs == 'detections' and select and not counts_image_pixels(detector)
        self.preprocessing = preprocessing.outside() if normalize else preprocessing
        self.normalization = _Normalization(preprocessing) if normalize else nn.Identity()
        self.detector = detector
        # This includes the network itself, because PyTorch's exporters restore its mode.
        self.eval()
        height, width = preprocessing.input_size
        try:
            with torch.no_grad():
                maps = self._detect(torch.zeros(1, 3, height, width))
        except (RuntimeError, ValueError) as error:
            raise ExportError(
                f'the detector does not run on an input of {height} x {width} pixels '
                f'({describe_error(error)}): export with a larger --size'
            ) from error
        if outputs == 'features':
            self.output_names = [f'feature_{i}' for i in range(len(maps))]
        elif outputs == 'head':
            self.output_names = _name_raw_outputs(detector, maps)
        else:
            self.output_names = ['boxes', 'scores']
            head, sizes = detector.bbox_head, [level.shape[-2:] for level in maps[0]]
            self.decoder = BoxDecoder(head, preprocessing.input_size, sizes)
        if outputs == 'detections':
            if self.select:
                self.output_names = [f'candidate_{kind}' for kind in ('boxes', 'scores', 'labels')]
                self.output_names.append('class_scores')
            elif len(maps) > 2:
                self.output_names.append('factors')
            self.selection = CandidateSelection(
                self.decoder.num_priors, head.num_classes, head.test_cfg
            )
            self.num_candidates = sum(self.selection.num_candidates)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Runs the network.

        Args:
            images: (B, 3, H, W), float32, of the preprocessing's size. They are pixel values (0 to
                255, BGR) if the network normalises, else normalised.

        Returns:
            The outputs, in the order of :attr:`output_names`.
        """
        maps = self._detect(self.normalization(images))
        if self.outputs == 'features':
            return tuple(maps)
        if self.outputs == 'head':
            return tuple(level for levels in maps for level in levels)
        boxes, scores, factors = self.decoder(*maps)
        if self.select:
            return self.selection(boxes, scores, factors)
        if self.outputs == 'detections':
            return (boxes, scores) if factors is None else (boxes, scores, factors)
        return boxes, scores if factors is None else scores * factors

    def _detect(self, images: Tensor) -> tuple:
        if self.outputs == 'features':
            return self.detector.backbone(images)
        return self.detector(images, mode='tensor')


def counts_image_pixels(detector: BaseModel) -> bool:
    """Returns whether a detector drops boxes by their size in pixels of the image."""
    return (detector.bbox_head.test_cfg or {}).get('min_bbox_size', -1) > 0


class _Normalization(nn.Module):
    """Orders and normalises the channels of (B, 3, H, W)."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.to_rgb = preprocessing.channel_order == 'RGB'
        self.register_buffer('mean', torch.tensor(preprocessing.mean).view(3, 1, 1))
        self.register_buffer('std', torch.tensor(preprocessing.std).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return ((images.flip(1) if self.to_rgb else images) - self.mean) / self.std


def _name_raw_outputs(detector: BaseModel, outputs: tuple[list[Tensor], ...]) -> list[str]:
    if len(outputs) > len(_RAW_NAMES):
        raise ExportError(
            f'{type(detector.bbox_head).__name__} has {len(outputs)} kinds of outputs, at most '
            f'{len(_RAW_NAMES)} are supported: use --outputs features'
        )
    return [
        f'{name}_{i}'
        for name, levels in zip(_RAW_NAMES, outputs, strict=False)
        for i in range(len(levels))
    ]
