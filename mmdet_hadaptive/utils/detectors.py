"""A detector with the weights of a checkpoint."""

from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import load_state_dict
from torch import Tensor

from .safe_loading import UnreadableCheckpointError, load_checkpoint


def load_detector(config: Config, checkpoint: str | Path) -> tuple[BaseModel, list[str]]:
    """Builds a detector and loads all of its weights.

    Args:
        config: The detector's.
        checkpoint: A file or URL, as MMEngine takes it.

    Returns:
        The detector, in eval mode, and the names of its classes.

    Raises:
        UnreadableCheckpointError: If the checkpoint is damaged or does not fit the config.
        OSError: If the file cannot be read.
    """
    init_default_scope(config.get('default_scope', 'mmdet'))
    loaded = load_checkpoint(checkpoint)
    detector = revert_sync_batchnorm(MODELS.build(config.model)).eval()
    try:
        # MMEngine only logs which weights are missing unless it is told to be strict.
        load_state_dict(detector, _find_weights(loaded, checkpoint), strict=True)
    except (RuntimeError, ValueError) as error:
        # MMEngine lists everything that does not fit, below a headline.
        headline, _, reasons = str(error).partition('\n\n')
        raise UnreadableCheckpointError(
            f'{checkpoint} does not fit the config, use the one that it was trained with: '
            f'{(reasons or headline).splitlines()[0][:300]}'
        ) from error
    classes = loaded.get('meta', {}).get('dataset_meta', {}).get('classes')
    if classes is None:
        dataset = {**config.test_dataloader.dataset, 'lazy_init': True}
        classes = DATASETS.build(dataset).metainfo['classes']
    num_classes = getattr(getattr(detector, 'bbox_head', None), 'num_classes', len(classes))
    if num_classes != len(classes):
        raise UnreadableCheckpointError(
            f'the head has {num_classes} classes, but {len(classes)} are named: {classes}. Name '
            'those that it was trained with in test_dataloader.dataset.metainfo'
        )
    return detector, list(classes)


def _find_weights(loaded: Any, checkpoint: str | Path) -> dict[str, Tensor]:
    weights = loaded.get('state_dict', loaded) if isinstance(loaded, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise UnreadableCheckpointError(
            f'{checkpoint} holds no state_dict: use a checkpoint that MMEngine wrote'
        )
    return {name.removeprefix('module.'): weight for name, weight in weights.items()}
