"""Data sets in COCO's format. They name mistakes, and are read once for all processes."""

import gc
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mmdet
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.fileio import get, get_local_path
from mmengine.logging import print_log
from PIL import Image

from .. import __version__
from .check import check_annotations, describe_classes, read_coco
from .decoding import (
    MAX_PIXELS,
    DeepImageError,
    LoadImageFromFile,
    decode_image,
    refuse_deep,
)
from .shared_state import share_state

_SHOWN = 3
# Smaller annotation files are read in less than a second.
_SHARED_FROM = 16 * 2**20
# The attributes that the annotations give, and those that they depend on.
_STATE = ('data_bytes', 'data_address', 'cat_ids', 'cat2label', 'cat_img_map', 'notes')
_OPTIONS = ('data_prefix', 'metainfo', 'filter_cfg', 'test_mode', 'seg_map_suffix', '_indices')
# mmdet 3.2 has only the first.
_OPTIONS += ('return_classes', 'caption_prompt')
# With other options an image may not have three channels of 8 bits.
_PLAIN = {'type', 'imdecode_backend', 'backend_args'}


@DATASETS.register_module()
class CheckedCocoDataset(CocoDataset):
    """``CocoDataset`` that names mistakes when it is built.

    ``CocoDataset`` drops annotations of unknown categories, shifts labels if a class name does not
    match, and finds a missing image only when it reads it. This class checks the annotation file
    when it loads it, and names an image that cannot be read. ``LoadImageFromFile`` decodes with
    Pillow unless the pipeline names an ``imdecode_backend``. Pillow refuses a truncated image;
    OpenCV fills the rest of it with grey. An alpha channel is dropped.

    One process parses a large annotation file (16 MiB or more). All others, also in later runs, map
    the result (:func:`share_state`). The file is parsed again if its size, its modification time,
    the files in the image folder, the options, or the version of this package or of MMDetection
    have changed.

    All arguments are those of ``mmdet.datasets.CocoDataset``.
    """

    def __init__(
        self, *args: Any, pipeline: Sequence[dict[str, Any] | Callable] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, pipeline=[_decode_by_pillow(step) for step in pipeline], **kwargs)

    def full_init(self) -> None:
        """Loads the annotations, or maps those that another process has loaded."""
        if self._fully_initialized:
            return
        self.notes: list[str] = []
        local = not self.backend_args and Path(self.ann_file).is_file()
        if (
            # A subclass may read annotations differently.
            type(self) is CheckedCocoDataset
            and local
            and self.serialize_data
            and self.proposal_file is None
            and Path(self.ann_file).stat().st_size >= _SHARED_FROM
        ):
            vars(self).update(share_state(*self._identify(), self._read_all))
            self._fully_initialized = True
        else:
            super().full_init()
        for note in self.notes:
            print_log(f'{self.ann_file}: {note}', logger='current')

    def _identify(self) -> tuple[str, str]:
        """Returns what the cached annotations depend on: files with their state, and options."""
        file = Path(self.ann_file).resolve()
        options = [repr(getattr(self, name, None)) for name in _OPTIONS]
        key = hashlib.sha256('\n'.join([str(file), *options]).encode()).hexdigest()[:32]
        entries = [file, Path(self.data_prefix.get('img') or file.parent)]
        stats = [path.stat() if path.exists() else None for path in entries]
        stamp = [(stat.st_size, stat.st_mtime_ns, stat.st_ino) if stat else None for stat in stats]
        return key, repr((stamp, mmdet.__version__, __version__))

    def _read_all(self) -> dict[str, Any]:
        super().full_init()
        return {name: getattr(self, name) for name in _STATE}

    def load_data_list(self) -> list[dict[str, Any]]:
        """Checks and loads the annotation file.

        Returns:
            MMDetection's list of annotated images.

        Raises:
            ValueError: If the annotations have errors. It names all of them.
        """
        classes = self.metainfo['classes']
        if isinstance(classes, str):
            raise ValueError(describe_classes(classes))
        with (
            get_local_path(self.ann_file, backend_args=self.backend_args) as path,
            _no_garbage_collection(),
        ):
            # A remote store has no folder to list. Its images are read one by one.
            folder = None if self.backend_args else self.data_prefix['img']
            coco, findings = read_coco(path, self.test_mode)
            findings = findings or check_annotations(
                coco, path, folder, classes, test_mode=self.test_mode
            )
            errors = [f'\n  {finding.describe(_SHOWN)}' for finding in findings if finding.is_error]
            if errors:
                raise ValueError(
                    f'the data set {self.ann_file} cannot be used:{"".join(errors)}\n'
                    '  tools/check_dataset.py CONFIG checks it before training'
                )
            self.notes += [finding.describe(_SHOWN) for finding in findings]
            self.cat_ids = [item['id'] for item in coco['categories'] if item['name'] in classes]
            self.cat2label = {category: label for label, category in enumerate(self.cat_ids)}
            self.cat_img_map = defaultdict(list)
            annotations = defaultdict(list)
            for item in coco['annotations']:
                self.cat_img_map[item['category_id']].append(item['image_id'])
                annotations[item['image_id']].append(item)
            return [
                self.parse_data_info(
                    dict(
                        raw_img_info={**image, 'img_id': image['id']},
                        raw_ann_info=annotations[image['id']],
                    )
                )
                for image in coco['images']
            ]

    def parse_data_info(self, raw_data_info: dict[str, Any]) -> dict[str, Any]:
        """Parses one image's annotations, with its boxes clipped to the image.

        ``CocoDataset`` keeps the part of a box outside of the image, and ``Expand`` would make it a
        part of the target. Boxes with less than one pixel inside the image are left out.

        Args:
            raw_data_info: ``raw_img_info`` and ``raw_ann_info`` as in the annotation file.

        Returns:
            MMDetection's annotated image.
        """
        info = super().parse_data_info(raw_data_info)
        limits = (info['width'], info['height']) * 2
        for instance in info['instances']:
            instance['bbox'] = [
                min(max(value, 0), limit)
                for value, limit in zip(instance['bbox'], limits, strict=True)
            ]
        # CocoDataset checks sizes before clipping. The logarithm of a size of 0 would be infinite.
        info['instances'] = [item for item in info['instances'] if _has_pixel(*item['bbox'])]
        return info

    def filter_data(self) -> list[dict[str, Any]]:
        """Leaves out the images that ``filter_cfg`` excludes, and logs their number.

        Returns:
            The remaining images.

        Raises:
            ValueError: If none is left.
        """
        kept = super().filter_data()
        if len(kept) < len(self.data_list):
            self.notes.append(
                f'filter_cfg={self.filter_cfg} leaves {len(kept)} of {len(self.data_list)} images'
            )
        if not kept:
            raise ValueError(
                f'no image of {self.ann_file} is left: all {len(self.data_list)} are without boxes '
                f'of the classes or smaller than filter_cfg={self.filter_cfg} allows'
            )
        return kept

    def prepare_data(self, idx: int) -> Any:
        """Runs the pipeline on an image.

        Args:
            idx: The index of the image in the data set.

        Returns:
            The output of the pipeline.

        Raises:
            RuntimeError: If the pipeline fails. It names the image, and says whether the file is
                the cause.
        """
        try:
            path = self.get_data_info(idx)['img_path']
            # MMDetection would clip the values of deep images. A JPEG is never deep.
            if not path.lower().endswith(('.jpg', '.jpeg')):
                refuse_deep(get(path, backend_args=self.backend_args))
            return super().prepare_data(idx)
        except DeepImageError as error:
            raise RuntimeError(
                f'{path} cannot be used: {error}. tools/check_dataset.py CONFIG lists all of them'
            ) from error
        except Image.DecompressionBombError as error:
            raise RuntimeError(
                f'{path} cannot be used: it has more than {MAX_PIXELS:,} pixels, which Pillow does '
                'not decode: cut it into tiles. tools/check_dataset.py CONFIG lists all of them'
            ) from error
        except Exception as error:
            path = self.get_data_info(idx)['img_path']
            remedy = (
                'The file can be read; a step of the pipeline fails, see the first traceback'
                if self._can_read(path)
                else 'Copy the file again or remove it from the annotation file; '
                'tools/check_dataset.py CONFIG reads all images and lists every damaged one'
            )
            raise RuntimeError(
                f'{path} cannot be used ({type(error).__name__}: {error}). {remedy}'
            ) from error

    def _can_read(self, path: str) -> bool:
        try:
            decode_image(get(path, backend_args=self.backend_args))
        # Decoders raise errors of almost any type for damaged files.
        except Exception:
            return False
        return True


def _has_pixel(x1: float, y1: float, x2: float, y2: float) -> bool:
    return x2 - x1 >= 1 and y2 - y1 >= 1


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Pauses Python's garbage collection, which takes long among millions of new objects."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _decode_by_pillow(step: dict[str, Any] | Callable) -> dict[str, Any] | Callable:
    if not isinstance(step, dict) or step['type'] != 'LoadImageFromFile':
        return step
    step = dict(imdecode_backend='pillow') | step
    if step['imdecode_backend'] == 'pillow' and step.keys() <= _PLAIN:
        return LoadImageFromFile(**{key: step[key] for key in step if key != 'type'})
    return step
