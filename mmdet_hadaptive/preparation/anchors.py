"""Chooses the anchors of SSDLite from the sizes of boxes."""

from dataclasses import dataclass

import numpy as np
import torch
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from torch import Tensor

# The least IoU of an anchor with a box that it learns, as in SSDLite's assigner.
_MIN_IOU = 0.5
_MAX_BOXES = 2000
_SMALLEST = (10, 14, 20, 28, 36, 48, 64)
_BATCH = 256


@dataclass(frozen=True)
class Anchors:
    """The sizes of anchors for each level, in pixels of the input.

    Attributes:
        min_sizes: The smaller anchor sizes in pixels, as MMDetection's ``SSDAnchorGenerator`` takes
            them.
        max_sizes: The larger anchor sizes in pixels, as that generator takes them.
        share: The share of boxes that overlap with an anchor by an IoU of 0.5 or more, 0..1.
    """

    min_sizes: tuple[int, ...]
    max_sizes: tuple[int, ...]
    share: float


def choose_anchors(
    boxes: Tensor, generator: ConfigDict, input_size: tuple[int, int]
) -> tuple[Anchors, Anchors]:
    """Chooses the sizes with which the most boxes overlap with an anchor.

    It tries several smallest sizes. From these, the sizes of the other levels rise to the largest
    in equal steps, or by equal factors.

    Args:
        boxes: (N, 4), corners in pixels of the resized image, N >= 1. If there are more than 2,000,
            every n-th is used.
        generator: The config of the ``SSDAnchorGenerator``.
        input_size: Height and width of the input in pixels.

    Returns:
        The chosen sizes, and the config's sizes.
    """
    boxes = boxes[:: -(-len(boxes) // _MAX_BOXES)]
    own = (tuple(generator.min_sizes), tuple(generator.max_sizes))
    levels, largest = len(generator.strides), generator.max_sizes[-1]
    candidates = [own]
    for smallest in _SMALLEST:
        for steps in (np.linspace, np.geomspace):
            sizes = [round(size) for size in steps(smallest, largest, levels + 1)]
            candidates.append((tuple(sizes[:-1]), tuple(sizes[1:])))
    results = [
        Anchors(*candidate, _reached_share(boxes, generator, candidate, input_size))
        for candidate in candidates
    ]
    return max(results, key=lambda anchors: anchors.share), results[0]


def _reached_share(
    boxes: Tensor,
    generator: ConfigDict,
    sizes: tuple[tuple[int, ...], tuple[int, ...]],
    input_size: tuple[int, int],
) -> float:
    init_default_scope('mmdet')
    made = TASK_UTILS.build(dict(generator, min_sizes=sizes[0], max_sizes=sizes[1]))
    # SSDLite rounds the sizes of its maps up at each halving.
    maps = [tuple(-(-side // stride) for side in input_size) for stride in generator.strides]
    anchors = torch.cat(made.grid_priors(maps, device='cpu'))
    best = [bbox_overlaps(part, anchors).amax(1) for part in boxes.split(_BATCH)]
    return (torch.cat(best) >= _MIN_IOU).float().mean().item()
