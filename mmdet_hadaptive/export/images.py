"""Reads images of a config's test data by its test pipeline."""

from pathlib import Path

import numpy as np
from mmcv.transforms import Compose
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from hadaptive_runtime import ExportError
from hadaptive_runtime.errors import describe_error
from hadaptive_runtime.images import read_image

from ..utils.configs import type_name
from .preprocessing import find_test_pipeline


def first_test_image(config: Config) -> str:
    """Finds the first image of the config's test data.

    Args:
        config: A detector's config.

    Returns:
        The image's file.

    Raises:
        ExportError: If there is none.
    """
    try:
        return DATASETS.build(config.test_dataloader.dataset).get_data_info(0)['img_path']
    except (OSError, ValueError, IndexError) as error:
        raise ExportError(
            f"the config's test data has no image for the comparison, name one with --image: "
            f'{error}'
        ) from error


def run_pipeline(config: Config, image: str | Path) -> np.ndarray:
    """Runs the test pipeline on an image.

    Args:
        config: A detector's config.
        image: The file of the image.

    Returns:
        The input of the data preprocessor: (H, W, 3), uint8, BGR.

    Raises:
        ExportError: If the file does not exist, is truncated, or does not have 8 bits per channel,
            or if the pipeline fails.
    """
    if not Path(image).is_file():
        raise ExportError(f'{image}: no such image, name another with --image')
    pipeline = find_test_pipeline(config)
    init_default_scope(config.get('default_scope', 'mmdet'))
    transforms = Compose([t for t in pipeline if type_name(t['type']) != 'LoadAnnotations'])
    try:
        read_image(Path(image))
    except ExportError as error:
        raise ExportError(f'{error}, or name another image') from error
    try:
        inputs = transforms(dict(img_path=str(image), img_id=0))['inputs']
    except Exception as error:  # each decoder raises other types
        raise ExportError(
            f'{image} does not pass the test pipeline ({describe_error(error)}): replace it, or '
            'name another image'
        ) from error
    return inputs.permute(1, 2, 0).numpy()
