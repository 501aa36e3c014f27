"""How much frozen features know: a linear classifier on Caltech-101, with a fixed split.

Prints the accuracy on images alone and amid others, and for a network with products what it is
without them.
"""

import argparse
import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmdet_hadaptive.export.product_statistics import (
    collect_product_statistics,
    product_bottlenecks,
)
from mmdet_hadaptive.layers import AdaptiveCrossHadamard
from mmdet_hadaptive.models import HadaptiveNet

from ..analysis.product_contribution import measure_products
from .photos import PackedPhotos
from .students import normalised
from .teacher import to_mosaics

_TRAIN = 30
_MOST_TEST = 20


def caltech(folder: Path, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Reads the photos of the 101 classes.

    Args:
        folder: The folder of the packed photos.
        size: Side length in pixels to which the middle of each photo is scaled.

    Returns:
        Photos (N, 3, size, size), uint8; classes (N,); and which are for training, (N,), bool: of
        each class the 30 whose paths have the lowest hashes. Up to 20 more are to test with.
    """
    photos = PackedPhotos(folder, ['caltech101'])
    groups = defaultdict(list)
    for index, (_, path) in enumerate(photos.names):
        kind = path.split('/')[-2]
        if kind != 'BACKGROUND_Google':
            groups[kind].append((hashlib.sha256(path.encode()).digest(), index))
    images, classes, training = [], [], []
    for number, kind in enumerate(sorted(groups)):
        for rank, (_, index) in enumerate(sorted(groups[kind])[: _TRAIN + _MOST_TEST]):
            images.append(_middle(photos[index], size))
            classes.append(number)
            training.append(rank < _TRAIN)
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return stacked, torch.tensor(classes), torch.tensor(training)


@torch.no_grad()
def features(net: Callable[[Tensor], Sequence[Tensor]], images: Tensor) -> Tensor:
    """The means of a network's maps over all positions, side by side, (N, channels), float32."""
    parts = []
    for start in range(0, len(images), 64):
        maps = net(images[start : start + 64].float())
        parts.append(torch.cat([v.float().flatten(2).mean(2) for v in maps], dim=1))
    return torch.cat(parts)


def surrounded(net: Callable[[Tensor], tuple[Tensor, ...]]) -> Callable[[Tensor], list[Tensor]]:
    """Makes a network see each image amid eight others, as a detector sees an object.

    Args:
        net: Computes maps, whose sizes three divides, of 3 x 3 images.

    Returns:
        The same for images (B, 3, H, W): of each map the part of the image in the middle.
    """
    generator = torch.Generator().manual_seed(0)

    def compute(images: Tensor) -> list[Tensor]:
        others = torch.randint(len(images), (len(images), 9), generator=generator)
        others[:, 4] = torch.arange(len(images))
        maps = net(to_mosaics(images[others.flatten()], 3))
        thirds = [(value.shape[-2] // 3, value.shape[-1] // 3) for value in maps]
        return [m[..., h : 2 * h, w : 2 * w] for m, (h, w) in zip(maps, thirds, strict=True)]

    return compute


def accuracy(x: Tensor, classes: Tensor, training: Tensor, decay: float = 1e-5) -> float:
    """Fits a linear classifier to the training photos, and tests it on the others.

    Args:
        x: Features, shape (N, C).
        classes: Shape (N,).
        training: Shape (N,), bool.
        decay: Weight of the squared weights beside the cross-entropy.

    Returns:
        The mean over classes of the share of test photos it has right.
    """
    x = (x - x[training].mean(0)) / (x[training].std(0) + 1e-6)
    # Whatever the number of channels, so that one decay suits all networks.
    x = x / x.shape[1] ** 0.5
    layer = nn.Linear(x.shape[1], int(classes.max()) + 1)
    nn.init.zeros_(layer.weight)
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=150, line_search_fn='strong_wolfe', tolerance_change=1e-7
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(layer(x[training]), classes[training])
        loss = loss + decay * layer.weight.square().sum() / 10
        loss.backward()
        return loss

    optimizer.step(closure)
    right = layer(x[~training]).argmax(1) == classes[~training]
    return float(np.mean([right[classes[~training] == c].float().mean() for c in classes.unique()]))


def _middle(image: np.ndarray, size: int) -> np.ndarray:
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side]
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)


def main() -> None:
    """Measures the backbone of a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('photos', type=Path, help='folder that pack_photos.py has written')
    parser.add_argument('arch', help='architecture of the backbone, such as small-ir')
    parser.add_argument('checkpoint', help='file or hadaptive://NAME; layers are backbone.*')
    args = parser.parse_args()
    # MMEngine names every weight that it initialises.
    MMLogger.get_current_instance().setLevel('WARNING')
    init_cfg = dict(type='Pretrained', checkpoint=args.checkpoint, prefix='backbone.')
    net = HadaptiveNet(args.arch, out_indices=(3, 4), init_cfg=init_cfg)
    net.init_weights()
    net.eval()
    images, classes, training = caltech(args.photos, 160)

    def evaluate(net: nn.Module) -> float:
        return accuracy(features(lambda x: net(normalised(x)), images), classes, training)

    print(f'accuracy {evaluate(net):.3f}')
    amid = features(surrounded(lambda x: net(normalised(x))), images)
    print(f'surrounded by other images {accuracy(amid, classes, training):.3f}')
    if any(isinstance(module, AdaptiveCrossHadamard) for module in net.modules()):
        with collect_product_statistics(product_bottlenecks(net)) as statistics:
            features(lambda x: net(normalised(x)), images[training])
        without = next(measure_products(net, statistics, evaluate))
        print(f'products constant {without.constant:.3f}')
        print(f'random selection {without.random:.3f}, the same for all {without.frozen:.3f}')


if __name__ == '__main__':
    main()
