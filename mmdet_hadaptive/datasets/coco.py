"""COCO format, with its mistakes named."""

from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.fileio import get_local_path
from mmengine.logging import print_log

from .check import check_coco


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
            findings = check_coco(local_path, folder, self.metainfo['classes'])
        errors = [f'\n  {finding}' for finding in findings if finding.is_error]
        if errors:
            raise ValueError(
                f'the data set {self.ann_file} cannot be used:{"".join(errors)}\n'
                '  tools/check_dataset.py CONFIG checks it before training'
            )
        for finding in findings:
            print_log(f'{self.ann_file}: {finding}', logger='current')
        return super().load_data_list()

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
