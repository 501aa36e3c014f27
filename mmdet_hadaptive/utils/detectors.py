"""Builds a detector with the weights of a checkpoint."""

from collections.abc import Mapping, Sequence
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
        config: The detector's config.
        checkpoint: A file or URL for MMEngine.

    Returns:
        The detector, in eval mode, and the names of its classes.

    Raises:
        UnreadableCheckpointError: If the checkpoint is damaged or does not fit the config.
        OSError: If the file cannot be read.
    """
    init_default_scope(config.get('default_scope', 'mmdet'))
    loaded = load_checkpoint(checkpoint)
    detector = revert_sync_batchnorm(MODELS.build(config.model)).eval()
    weights = _find_weights(loaded, checkpoint)
    learned = loaded.get('meta', {}).get('dataset_meta', {}).get('classes')
    try:
        # Without strict, MMEngine only logs missing weights.
        load_state_dict(detector, weights, strict=True)
    except (RuntimeError, ValueError) as error:
        # Our backbone itself names the weights that do not fit.
        is_ours = isinstance(error, ValueError)
        difference = '' if is_ours else _describe_difference(weights, detector.state_dict())
        reason = difference or str(error)
        if learned is not None and len(learned) != _num_classes(detector, learned):
            reason = (
                f'it was trained on {len(learned)} classes ({", ".join(learned)}), the config has '
                f'{_num_classes(detector, learned)}; {reason}'
            )
        raise UnreadableCheckpointError(
            f'{checkpoint} does not fit the config, use the one that it was trained with: {reason}'
        ) from error
    classes = learned
    if classes is None:
        dataset = {**config.test_dataloader.dataset, 'lazy_init': True}
        classes = DATASETS.build(dataset).metainfo.get('classes')
    if classes is None:
        raise UnreadableCheckpointError(
            f'neither {checkpoint} nor the config names the classes: name those that it was '
            'trained with in test_dataloader.dataset.metainfo'
        )
    num_classes = _num_classes(detector, classes)
    if num_classes != len(classes):
        raise UnreadableCheckpointError(
            f'the head has {num_classes} classes, but {len(classes)} are named: {classes}. Name '
            'those that it was trained with in test_dataloader.dataset.metainfo'
        )
    return detector, list(classes)


def _num_classes(detector: BaseModel, classes: Sequence[str]) -> int:
    return getattr(getattr(detector, 'bbox_head', None), 'num_classes', len(classes))


def _describe_difference(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Describes the differences between the weights of a checkpoint and of a detector."""
    shapes = [
        f'{name} ({tuple(found[name].shape)}, here {tuple(value.shape)})'
        for name, value in wanted.items()
        if name in found and getattr(found[name], 'shape', ()) != getattr(value, 'shape', ())
    ]
    problems = {
        'have another shape': shapes,
        'are missing': [name for name in wanted if name not in found],
        'are not in this detector': [name for name in found if name not in wanted],
    }
    return ', '.join(
        f'{len(names)} weights {problem}, such as {names[0]}'
        for problem, names in problems.items()
        if names
    )


def _find_weights(loaded: Any, checkpoint: str | Path) -> dict[str, Tensor]:
    weights = loaded.get('state_dict', loaded) if isinstance(loaded, dict) else None
    if not isinstance(weights, dict) or not all(
        isinstance(weight, Tensor) or name.endswith('_extra_state')
        for name, weight in weights.items()
    ):
        raise UnreadableCheckpointError(
            f'{checkpoint} holds no state_dict: use a checkpoint that MMEngine wrote'
        )
    # MMDetection 2 also stored its averaged weights under other names.
    return {
        name.removeprefix('module.'): weight
        for name, weight in weights.items()
        if not name.startswith('ema_')
    }
