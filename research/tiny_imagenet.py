"""Tiny ImageNet, for classifiers."""

from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS
from mmengine.dataset import BaseDataset


@DATASETS.register_module()
class TinyImageNet(BaseDataset):
    """The 200 classes of Tiny ImageNet, in the folders in which it is distributed.

    ``wnids.txt`` names the classes; their sorted order gives the labels. ``words.txt`` has what
    they are called. 500 training images of each are in ``train/CLASS/images``; 50 of each in
    ``val/images``, with their classes in ``val/val_annotations.txt``. The images of ``test`` have
    no labels.

    Each entry has ``img_path`` and ``gt_label``, as MMPretrain's transforms take them.

    Source: https://tiny-imagenet.herokuapp.com (Stanford CS231n); the images are ImageNet's.

    Args:
        split: 'train' or 'val'.
        data_root: The folder with ``wnids.txt``.
        **kwargs: As for mmengine's ``BaseDataset``.

    Raises:
        ValueError: If there is no such split.
        FileNotFoundError: If the folder is laid out otherwise; names the missing file.
    """

    def __init__(self, split: str, data_root: str, **kwargs: Any) -> None:
        if split not in ('train', 'val'):
            raise ValueError(f"split must be 'train' or 'val', got {split!r}")
        self.split = split
        root = Path(data_root)
        if not (root / 'wnids.txt').is_file():
            raise FileNotFoundError(
                f'{root / "wnids.txt"} not found: data_root must be the folder tiny-imagenet-200 '
                'as it is distributed, with wnids.txt, train and val'
            )
        self.names = sorted((root / 'wnids.txt').read_text().split())
        words = dict(
            line.split('\t', 1) for line in (root / 'words.txt').read_text().splitlines() if line
        )
        classes = tuple(words[name].split(',')[0] for name in self.names)
        super().__init__(data_root=data_root, metainfo=dict(classes=classes), **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Lists the images of the split with their labels."""
        root = Path(self.data_root)
        labels = {name: label for label, name in enumerate(self.names)}
        if self.split == 'train':
            entries = [
                (file, labels[name])
                for name in self.names
                for file in sorted((root / 'train' / name / 'images').iterdir())
            ]
        else:
            lines = (root / 'val/val_annotations.txt').read_text().splitlines()
            entries = [
                (root / 'val/images' / name, labels[wnid])
                for name, wnid, *_ in (line.split('\t') for line in lines)
            ]
        return [dict(img_path=str(file), gt_label=label) for file, label in entries]
