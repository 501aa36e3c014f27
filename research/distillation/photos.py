"""Random crops of packed photos, with what the teacher says of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from .teacher import OpenVINOTeacher, Teacher

# A crop has at least so many pixels at a side where the photo has them, so that it shows something.
_LEAST_SIDE = 64


class PackedPhotos:
    """The photos of some sources, as ``pack_photos.py`` writes them.

    Args:
        folder: The folder of the photos.
        sources: Their names.

    Attributes:
        names: For each photo its source and its path there.
        source_of: For each photo the number of its source.
    """

    def __init__(self, folder: Path, sources: list[str]) -> None:
        self.names: list[tuple[str, str]] = []
        self._places: list[tuple[np.ndarray, int, int]] = []
        numbers = []
        for number, source in enumerate(sources):
            index = json.loads((folder / f'{source}.json').read_text())
            parts = [
                np.memmap(folder / f'{source}-{part:03d}.bin', np.uint8, 'r')
                for part in range(1 + max(entry[1] for entry in index))
            ]
            for path, part, offset, length in index:
                self.names.append((source, path))
                self._places.append((parts[part], offset, length))
            numbers += [number] * len(index)
        self.source_of = np.array(numbers)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> np.ndarray:
        """One photo, RGB, shape (H, W, 3), uint8."""
        part, offset, length = self._places[index]
        data = part[offset : offset + length].tobytes()
        try:
            return simplejpeg.decode_jpeg(data, 'RGB', fastdct=True, fastupsample=True)
        except ValueError:
            # What libjpeg-turbo does not convert, such as CMYK.
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            return image[:, :, ::-1]


def random_crop(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random part of a photo, flipped half of the time.

    Args:
        image: Shape (H, W, 3).
        size: Side length of the result in pixels.
        rng: Draws it.

    Returns:
        Shape (size, size, 3).
    """
    height, width = image.shape[:2]
    least = min(1.0, max(0.2, _LEAST_SIDE**2 / min(height, width) ** 2))
    area = rng.uniform(least, 1) * height * width
    ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    crop_width = min(width, round((area * ratio) ** 0.5))
    crop_height = min(height, round((area / ratio) ** 0.5))
    left = rng.integers(width - crop_width + 1)
    top = rng.integers(height - crop_height + 1)
    crop = image[top : top + crop_height, left : left + crop_width]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    shrinks = crop_width > size
    return cv2.resize(
        crop, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


class RandomCrops(IterableDataset):
    """Endless batches of crops, for the workers of a ``DataLoader``.

    Yields ``(crops, outputs)``: crops (B, size, size, 3), uint8; outputs as :meth:`Teacher.forward`
    gives them, float16, empty without a teacher.

    Args:
        folder: The folder of the packed photos.
        shares: For each source how often its photos are taken, relative to others.
        size: Side length of the crops in pixels.
        batch_size: Crops in a batch.
        seed: What the draws start from.
        wheel: The weights of a teacher that runs in the worker; None for none.
        mosaic: The teacher sees ``mosaic`` x ``mosaic`` crops as one image.
    """

    def __init__(
        self,
        folder: Path,
        shares: Mapping[str, float],
        size: int,
        batch_size: int,
        seed: Sequence[int],
        wheel: Path | None = None,
        mosaic: int = 1,
    ) -> None:
        self.folder = folder
        self.shares = shares
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.wheel = wheel
        self.mosaic = mosaic

    def __iter__(self) -> Iterator[tuple[Tensor, list[Tensor]]]:
        # Workers run side by side: more threads would wait for each other.
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        worker = get_worker_info()
        rng = np.random.default_rng((*self.seed, worker.id if worker else 0))
        photos = PackedPhotos(self.folder, list(self.shares))
        weights = np.array(list(self.shares.values()))[photos.source_of]
        ends = np.cumsum(weights / weights.sum())
        teacher = None
        if self.wheel:
            teacher = OpenVINOTeacher(Teacher(self.wheel, self.mosaic), self.size, 1)
        while True:
            chosen = np.searchsorted(ends, rng.random(self.batch_size)).clip(max=len(photos) - 1)
            crops = np.stack([random_crop(photos[index], self.size, rng) for index in chosen])
            outputs = []
            if teacher:
                outputs = teacher(crops.transpose(0, 3, 1, 2).astype(np.float32))
            yield torch.from_numpy(crops), [torch.from_numpy(value).half() for value in outputs]
