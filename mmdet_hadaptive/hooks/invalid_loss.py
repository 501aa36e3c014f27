"""Stops a training whose loss is no number any more."""

from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import CheckpointLoader, Runner


@HOOKS.register_module()
class StopOnInvalidLossHook(Hook):
    """Stops the run at the first NaN or infinite loss.

    The error names the iteration, the terms of the loss, the images of the batch, and the last
    checkpoint whose weights are all finite.

    Raises:
        FloatingPointError: After the first iteration with such a loss.
    """

    # Before anything is saved.
    priority = 'VERY_HIGH'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, torch.Tensor] | None = None,
    ) -> None:
        """Looks at the loss of the iteration."""
        if outputs is None or 'loss' not in outputs or torch.isfinite(outputs['loss']).all():
            return
        terms = ', '.join(f'{name} {float(value):g}' for name, value in outputs.items())
        good = _last_finite_checkpoint(Path(runner.work_dir))
        remedy = f'--resume {good}, and' if good else 'from the start'
        raise FloatingPointError(
            f'the loss is not finite in iteration {runner.iter + 1} (epoch {runner.epoch + 1}, '
            f'batch {batch_idx + 1}): {terms}\n'
            f'  images: {", ".join(_image_paths(data_batch)) or "unknown"}\n'
            f'  last checkpoint with finite weights: {good or f"none in {runner.work_dir}"}\n'
            f'  remedy: look at these images and their boxes; then train again, {remedy} with '
            'gradient clipping (optim_wrapper.clip_grad) or a lower learning rate'
        )


def _image_paths(data: Any) -> list[str]:
    """The paths of all data samples in a batch, however it is nested."""
    if hasattr(data, 'metainfo'):
        return [str(data.metainfo.get('img_path', data.metainfo.get('img_id', 'unnamed')))]
    if isinstance(data, dict):
        data = list(data.values())
    if isinstance(data, (list, tuple)):
        return [path for item in data for path in _image_paths(item)]
    return []


def _last_finite_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in a folder whose weights are all finite."""
    for path in sorted(folder.glob('*.pth'), key=lambda path: path.stat().st_mtime, reverse=True):
        state = CheckpointLoader.load_checkpoint(str(path), map_location='cpu')['state_dict']
        if all(value.isfinite().all() for value in state.values()):
            return path
    return None
