"""A training on one half of the images, with the other half at hand."""

from collections.abc import Iterator, Sized
from typing import Any

import torch
from mmdet.datasets import MultiImageMixDataset
from mmdet.registry import DATA_SAMPLERS, LOOPS
from mmengine.dataset import ClassBalancedDataset, DefaultSampler, RepeatDataset
from mmengine.dist import get_world_size
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import Sampler


@DATA_SAMPLERS.register_module()
class HalfSampler(Sampler):
    """Draws from one half of the images of a data set, as MMEngine's ``DefaultSampler`` does.

    Images that a wrapper repeats are in one half only, however often they are repeated.

    Args:
        dataset: The data set.
        half: 0, or 1 for the other half, which has one image more if their number is odd.
        split_seed: Seed of the division.
        options: Arguments of ``DefaultSampler``.

    Attributes:
        indices: The elements of the data set that belong to the half, in rising order.

    Raises:
        ValueError: If the data set has less than two images, or mixes images.
    """

    def __init__(self, dataset: Sized, half: int, split_seed: int = 0, **options: Any) -> None:
        images = _number_images(dataset)
        count = max(images, default=-1) + 1
        if count < 2:
            raise ValueError(
                f'a search needs two halves of the training set, which has {count} image(s)'
            )
        generator = torch.Generator().manual_seed(split_seed)
        # On the CPU as the generator is, also where torch.set_default_device says otherwise.
        in_half = torch.zeros(count, dtype=torch.bool, device='cpu')
        order = torch.randperm(count, generator=generator, device='cpu')
        in_half[order[: count // 2]] = True
        wanted = (in_half if half == 0 else ~in_half).tolist()
        self.indices = [index for index, image in enumerate(images) if wanted[image]]
        # Samplers of batches ask for it.
        self.dataset = dataset
        self._places = DefaultSampler(range(len(self.indices)), **options)

    def __iter__(self) -> Iterator[int]:
        return (self.indices[place] for place in self._places)

    def __len__(self) -> int:
        return len(self._places)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, from which the order follows."""
        self._places.set_epoch(epoch)


def _number_images(dataset: Sized) -> list[int]:
    """For each element of a data set the number of its image."""
    if isinstance(dataset, MultiImageMixDataset):
        raise ValueError(
            'MultiImageMixDataset mixes images of both halves of the training set: do without it'
        )
    if isinstance(dataset, RepeatDataset):
        return _number_images(dataset.dataset) * dataset.times
    if isinstance(dataset, ClassBalancedDataset):
        images = _number_images(dataset.dataset)
        return [images[index] for index in dataset.repeat_indices]
    return list(range(len(dataset)))


@LOOPS.register_module()
class ArchitectureSearchLoop(EpochBasedTrainLoop):
    """Trains on one half of the training set; :class:`ArchitectureSearchHook` takes the other.

    Args:
        runner: The runner.
        dataloader: Config of the training loader, with MMEngine's ``DefaultSampler``.
        split_seed: Seed of the division into halves.
        kwargs: Arguments of ``EpochBasedTrainLoop``.

    Attributes:
        architecture_dataloader: A loader like the training's own, of the other half.

    Raises:
        ValueError: If the training set cannot be halved, a half has no batch for each process, or
            the loader has another sampler.
    """

    def __init__(
        self, runner: Runner, dataloader: dict[str, Any], split_seed: int = 0, **kwargs: Any
    ) -> None:
        sampler = dict(dataloader['sampler'])
        if sampler.pop('type') not in ('DefaultSampler', DefaultSampler):
            raise ValueError(
                'ArchitectureSearchLoop halves what a DefaultSampler draws: set '
                f"train_dataloader.sampler.type='DefaultSampler', got {dataloader['sampler']}"
            )
        halves = [
            dict(sampler, type='mmdet.HalfSampler', half=half, split_seed=split_seed)
            for half in (0, 1)
        ]
        different = runner._randomness_cfg.get('diff_rank_seed', False)
        first, second = (
            runner.build_dataloader(dict(dataloader, sampler=half), runner.seed, different)
            for half in halves
        )
        smaller = min(first, second, key=len)
        if not len(smaller):
            raise ValueError(
                f'the training set is too small for a search: half of it, '
                f'{len(find_sampler(smaller).indices)} image(s), makes no batch of '
                f'{dataloader["batch_size"]} for each of {get_world_size()} process(es)'
            )
        super().__init__(runner, first, **kwargs)
        self.architecture_dataloader = second


def find_sampler(loader: torch.utils.data.DataLoader) -> HalfSampler:
    """The sampler of a loader, which a sampler of batches may have."""
    sampler = loader.sampler
    return sampler if isinstance(sampler, HalfSampler) else loader.batch_sampler.sampler
