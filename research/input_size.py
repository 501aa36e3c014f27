"""Finds the size of the images that a config's model gets."""

from mmengine.config import Config
from torch import nn

from mmdet_hadaptive.utils.configs import find_pipelines, type_name


def input_size(config: Config, model: nn.Module) -> tuple[int, int]:
    """Finds the size of a config's test images.

    Args:
        config: A config of MMDetection or MMPretrain.
        model: The model of this config. It may pad images.

    Returns:
        Height and width in pixels.

    Raises:
        ValueError: If the test pipeline neither resizes nor crops.
    """
    steps = [step for steps in find_pipelines(config.test_dataloader) for step in steps]
    sized = [step for step in steps if type_name(step['type']) in ('Resize', 'CenterCrop')]
    if not sized:
        raise ValueError(
            'the test pipeline says no size, it has neither Resize nor CenterCrop: add one to '
            'test_dataloader.dataset.pipeline, though it changes nothing'
        )
    last = sized[-1]
    size = last.get('scale', last.get('crop_size'))
    width, height = (size, size) if isinstance(size, int) else size
    divisor = model.data_preprocessor.pad_size_divisor
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor
