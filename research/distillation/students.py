"""A student: a backbone with what compares its maps with the teacher's."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmdet_hadaptive.models import HadaptiveNet

from .teacher import EMBEDDING, MAP_CHANNELS, from_mosaics, to_mosaics

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
_MAP_WEIGHTS = (0.5, 1.0, 1.0)


class Targets(nn.Module):
    """Standardises the teacher's outputs, channel by channel.

    Args:
        classifier: The teacher's last layer.
    """

    def __init__(self, classifier: nn.Linear) -> None:
        super().__init__()
        for index, channels in enumerate((*MAP_CHANNELS, EMBEDDING)):
            self.register_buffer(f'mean{index}', torch.zeros(channels))
            self.register_buffer(f'std{index}', torch.ones(channels))
        # Not a submodule: it is not trained, and comes from the teacher's file.
        self._classifier = [classifier]

    def fit(self, outputs: Sequence[Tensor]) -> None:
        """Takes the statistics of a large batch."""
        for index, value in enumerate(outputs):
            flat = value.float().transpose(0, 1).flatten(1)
            getattr(self, f'mean{index}').copy_(flat.mean(1))
            getattr(self, f'std{index}').copy_(flat.std(1).clamp(min=1e-3))

    def standardise(self, index: int, value: Tensor) -> Tensor:
        """Maps (B, C, ...) of output ``index`` to zero mean and unit variance."""
        shape = (-1,) + (1,) * (value.dim() - 2)
        mean, std = getattr(self, f'mean{index}'), getattr(self, f'std{index}')
        return (value.float() - mean.view(shape)) / std.view(shape)

    def logits(self, embedding: Tensor) -> Tensor:
        """What the teacher's classifier makes of a standardised embedding (B, 1280)."""
        return self._classifier[0](embedding * self.std3 + self.mean3)


class Student(nn.Module):
    """A backbone, and 1 x 1 adapters from its maps to the teacher's.

    Args:
        arch: The architecture, as for ``HadaptiveNet``.
        mosaic: The network sees ``mosaic`` x ``mosaic`` crops as one image.
    """

    def __init__(self, arch: str, mosaic: int = 1) -> None:
        super().__init__()
        self.mosaic = mosaic
        self.backbone = HadaptiveNet(arch, out_indices=(2, 3, 4))
        self.backbone.init_weights()
        channels = self.backbone.out_channels
        self.adapters = nn.ModuleList(
            nn.Conv2d(c, t, 1) for c, t in zip(channels, MAP_CHANNELS, strict=True)
        )
        self.embed = nn.Linear(channels[-1], EMBEDDING)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Predicts the teacher's standardised outputs from normalised crops (B, 3, H, W)."""
        x = to_mosaics(x, self.mosaic).contiguous(memory_format=torch.channels_last)
        maps = [from_mosaics(value, self.mosaic) for value in self.backbone(x)]
        outputs = [
            F.conv2d(value, adapter.weight.to(value.dtype), adapter.bias.to(value.dtype))
            for value, adapter in zip(maps, self.adapters, strict=True)
        ]
        return [*outputs, self.embed(maps[-1].float().mean((2, 3)))]


def distillation_loss(
    outputs: Sequence[Tensor], targets: Targets, wanted: Sequence[Tensor], kl_weight: float
) -> tuple[Tensor, dict[str, float]]:
    """Compares a student with the teacher.

    Args:
        outputs: A student's.
        targets: Standardises and classifies.
        wanted: The teacher's maps and embedding, standardised and of the student's sizes.
        kl_weight: Weight of the divergence of the classes.

    Returns:
        The smooth L1 distance of maps and embedding and, weighted, the Kullback-Leibler divergence
        of the teacher's classes from those that the student's embedding gives; and its terms.
    """
    total, terms = 0.0, {}
    for index, weight in enumerate(_MAP_WEIGHTS):
        loss = F.smooth_l1_loss(outputs[index].float(), wanted[index])
        terms[f'map{8 << index}'] = float(loss.detach())
        total = total + weight * loss
    loss = F.smooth_l1_loss(outputs[3], wanted[3])
    terms['embedding'] = float(loss.detach())
    total = total + loss
    own = targets.logits(outputs[3]).log_softmax(1)
    other = targets.logits(wanted[3]).log_softmax(1)
    loss = F.kl_div(own, other, reduction='batchmean', log_target=True)
    terms['kl'] = float(loss.detach())
    return total + kl_weight * loss, terms


def fit_size(value: Tensor, size: int) -> Tensor:
    """Pools maps (B, C, H, H) to ``size``, or interpolates where it does not divide theirs.

    What is not a map stays as it is.
    """
    if value.dim() == 2 or value.shape[-1] == size:
        return value
    if value.shape[-1] % size == 0:
        return F.avg_pool2d(value, value.shape[-1] // size)
    return F.interpolate(value, (size, size), mode='bilinear', align_corners=False)


def normalised(pixels: Tensor) -> Tensor:
    """RGB pixels (B, 3, H, W) of 0..255 as our detectors see them."""
    mean, std = (pixels.new_tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (pixels - mean) / std
