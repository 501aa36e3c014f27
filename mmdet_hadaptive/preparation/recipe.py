"""Chooses the training of a detector by the size of the data set."""

import math
from dataclasses import dataclass

from mmengine.config import Config
from mmengine.hub import get_config

from ..models import ARCHITECTURES
from ..pretraining import distilled_weights
from .annotations import PreparationError

TEMPLATE = 'mmdet_hadaptive::ssdlite/ssdlite_hadaptive-s-ir_custom.py'
# These settings follow from the channels and strides of a network.
NECK_KEYS = ('in_channels', 'out_channels', 'level_strides', 'level_paddings')
_FAMILIES = {'small': 's', 'medium': 'm', 'large': 'l'}

# The recipe was measured with 205 images. Each was used 70 times, in 14 epochs.
_PASSES = 70
# Fewer images are repeated in an epoch, so that starting workers and validations take less time.
_FEW_IMAGES, _REPEATS, _SHORTEST_EPOCH = 1_000, 5, 100
_LARGEST_BATCH = 1_000
# The bounds of images in a training: 1,800 and 30,000 iterations with batches of eight.
_FEWEST, _MOST = 14_400, 240_000
_VALIDATIONS = 7
_BATCH_SIZE, _LEARNING_RATE = 8, 2e-3
# Shares of all iterations: the warm-up, and the average of the weights.
_WARM_UP, _AVERAGED = 1 / 18, 1 / 3.6
_SIZE_STEP, _SMALLEST = 64, 128


@dataclass(frozen=True)
class Schedule:
    """The length of a training, and the settings that depend on it.

    Attributes:
        repeats: How often an epoch repeats the images.
        epochs: The number of epochs.
        val_interval: The number of epochs between two validations.
        epoch_length: The number of iterations of an epoch.
        warm_up: The number of iterations in which the learning rate rises.
        momentum: The share of the new weights in the averaged weights.
        learning_rate: The highest learning rate.
    """

    repeats: int
    epochs: int
    val_interval: int
    epoch_length: int
    warm_up: int
    momentum: float
    learning_rate: float

    @property
    def iterations(self) -> int:
        """The number of iterations of the training."""
        return self.epochs * self.epoch_length


@dataclass(frozen=True)
class Recipe:
    """A network and its training.

    Args:
        arch: The network, one of ``ARCHITECTURES``.
        input_size: The side length of the square input in pixels, a multiple of 64.
        epochs: The number of epochs. If it is None, it follows from the number of images.
        batch_size: The number of images in a batch, at least 2. The last maps are 1 x 1, and batch
            normalisation needs several values.

    Raises:
        PreparationError: If an argument is out of its limits.
    """

    arch: str = 'small-ir'
    input_size: int = 320
    epochs: int | None = None
    batch_size: int = _BATCH_SIZE

    def __post_init__(self) -> None:
        if self.arch not in ARCHITECTURES:
            raise PreparationError(
                f'arch must be one of {", ".join(ARCHITECTURES)}, got {self.arch!r}'
            )
        if self.input_size < _SMALLEST or self.input_size % _SIZE_STEP:
            raise PreparationError(
                f'the input size must be a multiple of {_SIZE_STEP} and at least {_SMALLEST} '
                f'pixels, such as 320 or 512, got {self.input_size}'
            )
        if self.epochs is not None and self.epochs < 1:
            raise PreparationError(f'the number of epochs must be at least 1, got {self.epochs}')
        if not 2 <= self.batch_size <= _LARGEST_BATCH:
            raise PreparationError(
                f'the batch size must be in 2..{_LARGEST_BATCH}, got {self.batch_size}: batch '
                'normalisation needs two images'
            )

    def schedule(self, num_images: int) -> Schedule:
        """Chooses the length of the training.

        Args:
            num_images: The number of training images with boxes, at least 1.

        Returns:
            The schedule. The training uses each image 70 times, but at least 14,400 and at most
            240,000 images in all, in whole epochs. ``epochs`` overrides this.
        """
        repeats = max(
            min(_REPEATS, math.ceil(_FEW_IMAGES / num_images)),
            math.ceil(max(_SHORTEST_EPOCH, self.batch_size) / num_images),
        )
        wanted = min(max(_PASSES * num_images, _FEWEST), _MOST)
        epochs = self.epochs or max(1, round(wanted / (repeats * num_images)))
        length = repeats * num_images // self.batch_size
        iterations = epochs * length
        return Schedule(
            repeats=repeats,
            epochs=epochs,
            val_interval=max(1, epochs // _VALIDATIONS),
            epoch_length=length,
            warm_up=max(1, round(iterations * _WARM_UP)),
            momentum=float(f'{min(0.002, 1 / (iterations * _AVERAGED)):.2g}'),
            # The square root, because the size of Adam's steps does not depend on the gradient's.
            learning_rate=float(f'{_LEARNING_RATE * (self.batch_size / _BATCH_SIZE) ** 0.5:.2g}'),
        )

    def template(self) -> Config:
        """Reads the template with this network and input size.

        Returns:
            The config. Its model and pipelines are complete. Data sets and classes are not.
        """
        config = get_config(TEMPLATE)
        model = config.model
        if self.arch != model.backbone.arch:
            own = get_config(_coco_config(self.arch)).model
            template, model.backbone = model.backbone, own.backbone
            if weights := distilled_weights(self.arch):
                model.backbone.norm_cfg.eps = template.norm_cfg.eps
                model.backbone.init_cfg = dict(template.init_cfg, checkpoint=weights)
            model.bbox_head.in_channels = own.bbox_head.in_channels
            for key in NECK_KEYS:
                model.neck[key] = own.neck[key]
        generator, old_size = model.bbox_head.anchor_generator, config.input_size
        generator.strides = _strides(self.input_size, len(generator.strides))
        for key in ('min_sizes', 'max_sizes'):
            generator[key] = [round(v * self.input_size / old_size) for v in generator[key]]
        for step in (*config.train_pipeline, *config.test_pipeline):
            if 'scale' in step:
                step.scale = (self.input_size, self.input_size)
        config.input_size = self.input_size
        return config


def _coco_config(arch: str) -> str:
    size, _, blocks = arch.partition('-')
    name = _FAMILIES[size] + (f'-{blocks}' if blocks else '')
    return f'mmdet_hadaptive::ssdlite/ssdlite_hadaptive-{name}_8xb24-600e_coco.py'


def _strides(input_size: int, levels: int) -> list[int]:
    """Returns the distances of anchors on the maps, whose sizes are rounded up at each halving."""
    sides = [input_size // 16]
    while len(sides) < levels:
        sides.append(-(-sides[-1] // 2))
    return [-(-input_size // side) for side in sides]
