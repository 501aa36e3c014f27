"""Images of a config's test data, taken through its test pipeline."""

from pathlib import Path

import numpy as np
from mmcv.transforms import Compose
from mmdet.registry import DATASETS
from mmengine.config import Config
from PIL import Image, UnidentifiedImageError

from hadaptive_runtime import ExportError

from ..utils.errors import describe_error


def first_test_image(config: Config) -> str:
    """Finds the first image of the config's test data.

    Args:
        config: A detector's.

    Returns:
        Its file.

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
        config: A detector's.
        image: Its file.

    Returns:
        The image as the data preprocessor gets it: (H, W, 3), uint8, BGR.

    Raises:
        ExportError: If the file does not exist, is truncated, or does not pass the pipeline.
    """
    if not Path(image).is_file():
        raise ExportError(f'{image}: no such image, name another with --image')
    pipeline = config.test_dataloader.dataset.pipeline
    transforms = Compose([t for t in pipeline if t['type'] != 'LoadAnnotations'])
    try:
        _check_whole(image)
        inputs = transforms(dict(img_path=str(image), img_id=0))['inputs']
    except Exception as error:  # each decoder has its own
        raise ExportError(
            f'{image} does not pass the test pipeline ({describe_error(error)}): replace it, or '
            'name another image'
        ) from error
    return inputs.permute(1, 2, 0).numpy()


def _check_whole(image: str | Path) -> None:
    """Raises an error if an image is truncated; OpenCV 4 fills JPEG up with grey."""
    try:
        with Image.open(image) as opened:
            opened.load()
    except UnidentifiedImageError:
        # The pipeline may know the format.
        return
