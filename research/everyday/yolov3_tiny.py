"""YOLOv3-tiny with COCO's 80 classes, read from its authors' file of weights."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from mmcv.ops import batched_nms
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

SIZE = 416
_CLASSES = 80
# Width and height in pixels of the 416 x 416 input, for the maps of strides 32 and 16.
_ANCHORS = {
    32: ((81.0, 82.0), (135.0, 169.0), (344.0, 319.0)),
    16: ((10.0, 14.0), (23.0, 27.0), (37.0, 58.0)),
}
_OUTPUTS = 3 * (5 + _CLASSES)


class YOLOv3Tiny(nn.Module):
    """The network, in eval mode.

    Args:
        weights: ``yolov3-tiny.weights``: five integers, then float32. For each convolution come the
            biases, the other values of the batch normalisation, and the kernel.
    """

    def __init__(self, weights: Path) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, 128, 256, 512, 1024)
        self.trunk = nn.ModuleList(_conv(a, b, 3) for a, b in pairwise(widths))
        self.neck = _conv(1024, 256, 1)
        self.head32 = nn.Sequential(_conv(256, 512, 3), nn.Conv2d(512, _OUTPUTS, 1))
        self.lateral = _conv(256, 128, 1)
        self.head16 = nn.Sequential(_conv(384, 256, 3), nn.Conv2d(256, _OUTPUTS, 1))
        self.eval().requires_grad_(False)
        values = torch.from_numpy(np.fromfile(weights, np.float32, offset=20))
        convs = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        norms = (module for module in self.modules() if isinstance(module, nn.BatchNorm2d))
        for conv in convs:
            tensors = [conv.bias]
            if conv.bias is None:
                norm = next(norms)
                tensors = [norm.bias, norm.weight, norm.running_mean, norm.running_var]
            for tensor in (*tensors, conv.weight):
                tensor.copy_(values[: tensor.numel()].view_as(tensor))
                values = values[tensor.numel() :]
        if len(values):
            raise ValueError(f'{weights} has {len(values)} values too many for YOLOv3-tiny')

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Computes boxes and scores.

        Args:
            pixels: RGB, shape (B, 3, 416, 416), float32, values in 0..1.

        Returns:
            Boxes (B, 2535, 4) as corners in pixels, and scores (B, 2535, 80) in 0..1.
        """
        x, maps = pixels, []
        for index, layer in enumerate(self.trunk):
            x = layer(x)
            maps.append(x)
            if index < 5:
                x = F.max_pool2d(x, 2)
            elif index == 5:
                x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-1e9), 2, 1)
        x = self.neck(x)
        fine = torch.cat((F.interpolate(self.lateral(x), scale_factor=2.0), maps[4]), 1)
        found = [_decode(self.head32(x), 32), _decode(self.head16(fine), 16)]
        boxes, scores = (torch.cat(values, 1) for values in zip(*found, strict=True))
        return boxes, scores


def detect(
    boxes: Tensor, scores: Tensor, low: float, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Chooses the boxes of one image.

    Args:
        boxes: (N, 4), corners in pixels of the 416 x 416 input.
        scores: (N, 80), in 0..1.
        low: The lowest score.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        Corners (M, 4) in pixels of the image, scores (M,) and classes (M,), int64, after a
        non-maximum suppression at an IoU of 0.45 within each class.
    """
    index, classes = (scores > low).nonzero(as_tuple=True)
    scores = scores[index, classes]
    boxes = boxes[index].clamp(0, SIZE) * torch.tensor((width, height) * 2) / SIZE
    if not len(index):
        return boxes, scores, classes
    kept, order = batched_nms(boxes, scores, classes, dict(type='nms', iou_threshold=0.45))
    return kept[:, :4], kept[:, 4], classes[order]


def _conv(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(0.1),
    )


def _decode(x: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    side = SIZE // stride
    x = x.view(-1, 3, 5 + _CLASSES, side, side).permute(0, 1, 3, 4, 2)
    steps = torch.arange(side, dtype=torch.float32)
    grid = torch.stack(torch.meshgrid(steps, steps, indexing='xy'), -1)
    centre = (x[..., :2].sigmoid() + grid) * stride
    half = x[..., 2:4].exp() * torch.tensor(_ANCHORS[stride]).view(3, 1, 1, 2) / 2
    boxes = torch.cat((centre - half, centre + half), -1)
    scores = x[..., 4:5].sigmoid() * x[..., 5:].sigmoid()
    return boxes.reshape(-1, 3 * side * side, 4), scores.reshape(-1, 3 * side * side, _CLASSES)
