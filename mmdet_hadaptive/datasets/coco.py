"""COCO format, with its mistakes named."""

from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.fileio import get_local_path
from mmengine.logging import print_log

from .check import check_coco

_SHOWN = 3


@DATASETS.register_module()
class CheckedCocoDataset(CocoDataset):
    """``CocoDataset`` that names what is wrong instead of failing deep inside or later.

    ``CocoDataset`` drops annotations of unknown categories, shifts labels where a class name
    does not match and finds missing images only when it reaches them. Here the annotation file
    is checked when it is loaded, and an image that cannot be read is named.

    All arguments are those of ``mmdet.datasets.CocoDataset``.
    """

    def load_data_list(self) -> list[dict[str, Any]]:
        """Checks and loads the annotation file.

        Returns:
            MMDetection's list of annotated images.

        Raises:
            ValueError: If the annotations have errors; all of them are named.
        """
        with get_local_path(self.ann_file, backend_args=self.backend_args) as local_path:
            # Images in a remote store are read one by one; there is no folder to list.
            folder = None if self.backend_args else self.data_prefix['img']
            findings = check_coco(
                local_path, folder, self.metainfo['classes'], test_mode=self.test_mode
            )
        errors = [f'\n  {finding.describe(_SHOWN)}' for finding in findings if finding.is_error]
        if errors:
            raise ValueError(
                f'the data set {self.ann_file} cannot be used:{"".join(errors)}\n'
                '  tools/check_dataset.py CONFIG checks it before training'
            )
        for finding in findings:
            print_log(f'{self.ann_file}: {finding.describe(_SHOWN)}', logger='current')
        return super().load_data_list()

    def parse_data_info(self, raw_data_info: dict[str, Any]) -> dict[str, Any]:
        """Parses one image's annotations, with its boxes clipped to the image.

        ``CocoDataset`` keeps what reaches beyond, and ``Expand`` would make it part of the target.

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
        return info

    def filter_data(self) -> list[dict[str, Any]]:
        """Leaves out what ``filter_cfg`` says, and says how much that is.

        Returns:
            The images that are left.

        Raises:
            ValueError: If none is left.
        """
        kept = super().filter_data()
        if len(kept) < len(self.data_list):
            print_log(
                f'{self.ann_file}: filter_cfg={self.filter_cfg} leaves {len(kept)} of '
                f'{len(self.data_list)} images',
                logger='current',
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
            idx: Number of the image in the data set.

        Returns:
            What the pipeline makes of the image.

        Raises:
            RuntimeError: If that fails; names the image.
        """
        try:
            return super().prepare_data(idx)
        except Exception as error:
            path = self.get_data_info(idx)['img_path']
            raise RuntimeError(
                f'{path} cannot be used ({type(error).__name__}: {error}). If the file is damaged, '
                'copy it again or remove it from the annotation file; tools/check_dataset.py '
                'CONFIG reads all images and lists every damaged one'
            ) from error
