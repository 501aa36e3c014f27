"""The speed of detectors' training steps in several precisions, and what follows for COCO."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData

_COCO_IMAGES = 118_287
_BOXES = 4


@dataclass(frozen=True)
class Variant:
    """How a detector is trained.

    Attributes:
        dtype: The dtype of autocast; float32 switches it off.
        channels_last: Whether images and weights are in that memory format.
        compiled: Whether the backbone is compiled.
    """

    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    compiled: bool = False


VARIANTS = {
    'float32': Variant(),
    'float16': Variant(torch.float16),
    'bfloat16': Variant(torch.bfloat16),
    'float32, channels_last': Variant(channels_last=True),
    'bfloat16, channels_last': Variant(torch.bfloat16, channels_last=True),
    'bfloat16, channels_last, compiled': Variant(torch.bfloat16, True, True),
}


def make_training_step(
    model: dict[str, Any],
    variant: Variant,
    *,
    batch: int,
    side_length: int,
    device: str = 'cpu',
    backend: str = 'inductor',
) -> Callable[[], float]:
    """Makes one training step of a detector: forward pass, loss, backward pass, SGD.

    Args:
        model: The config of a detector with one stage.
        variant: How it is trained.
        batch: Random images, with four random boxes each, which are on the device already.
        side_length: Their height and width.
        device: The device that trains.
        backend: The backend of ``torch.compile``.

    Returns:
        A step, which waits for the device and returns the loss.
    """
    detector = MODELS.build(model)
    # MMEngine lists every parameter otherwise.
    MMLogger.get_current_instance().setLevel('ERROR')
    detector.init_weights()
    images = torch.randn(batch, 3, side_length, side_length, device=device)
    detector.train().to(device)
    if variant.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
        detector.to(memory_format=torch.channels_last)
    if variant.compiled:
        detector.backbone.compile(backend=backend)
    num_classes = model['bbox_head']['num_classes']
    samples = [_draw_sample(side_length, num_classes).to(device) for _ in range(batch)]
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-4, momentum=0.9, weight_decay=4e-5)
    kind = images.device.type
    mixed = variant.dtype is not torch.float32
    scaler = torch.amp.GradScaler(kind, enabled=variant.dtype is torch.float16)

    def step() -> float:
        with torch.autocast(kind, variant.dtype, enabled=mixed):
            loss, _ = detector.parse_losses(detector.loss(images, samples))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.item()

    return step


def hours_on_coco(images_per_second: float, epochs: int = 600) -> float:
    """How long the training images of COCO take.

    Args:
        images_per_second: The images per second of all processes together.
        epochs: How often each image is trained on.

    Returns:
        Hours.
    """
    return _COCO_IMAGES * epochs / images_per_second / 3600


def _draw_sample(side_length: int, num_classes: int) -> DetDataSample:
    corner = torch.rand(_BOXES, 2) * side_length / 2
    low = side_length / 20
    size = low + torch.rand(_BOXES, 2) * (side_length / 2 - low)
    shape = (side_length, side_length)
    return DetDataSample(
        metainfo=dict(img_shape=shape, pad_shape=shape, batch_input_shape=shape),
        gt_instances=InstanceData(
            bboxes=torch.cat([corner, corner + size], dim=1),
            labels=torch.randint(num_classes, (_BOXES,)),
        ),
    )
