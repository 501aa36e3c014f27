"""Stops a training whose loss or weights are not finite."""

import math
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from ..utils.safe_loading import UnreadableCheckpointError, load_checkpoint

_REMEDY = 'gradient clipping (optim_wrapper.clip_grad) or a lower learning rate'


@HOOKS.register_module()
class StopOnInvalidLossHook(Hook):
    """Stops the run at the first NaN or infinite loss, and before such weights are saved.

    The error names the iteration, the terms of the loss, the images of the batch, and the last
    checkpoint with finite weights only. MMEngine has already read the loss for its log in the same
    iteration, so the hook does not wait for the device again.

    Raises:
        FloatingPointError: After the first iteration with such a loss, or before a checkpoint of
            weights that are not finite, which is not written.
    """

    # After MMEngine has read the loss, and before anything uses or saves the weights.
    priority = 'HIGH'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, torch.Tensor] | None = None,
    ) -> None:
        """Checks the loss of the iteration."""
        if outputs is None or 'loss' not in outputs:
            return
        log = runner.message_hub
        if math.isfinite(log.get_scalar('train/loss').current()):
            return
        terms = [f'{name} {log.get_scalar(f"train/{name}").current():g}' for name in outputs]
        good, resume = _find_remedy(runner)
        raise FloatingPointError(
            f'the loss is not finite in iteration {runner.iter + 1} (epoch {runner.epoch + 1}, '
            f'batch {batch_idx + 1}): {", ".join(terms)}\n'
            f'  images: {", ".join(_image_paths(data_batch)) or "unknown"}\n'
            f'  last checkpoint with finite weights: {good}\n'
            f'  remedy: look at these images and their boxes; then train again, {resume} with '
            f'{_REMEDY}'
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Checks the weights before they are saved."""
        invalid = _find_invalid(checkpoint['state_dict'])
        if not invalid:
            return
        good, resume = _find_remedy(runner)
        raise FloatingPointError(
            f'{len(invalid)} weights are not finite after iteration '
            f'{checkpoint["meta"]["iter"]}, and are not saved: {", ".join(invalid[:3])}\n'
            f'  last checkpoint with finite weights: {good}\n'
            f'  remedy: train again, {resume} with {_REMEDY}'
        )


def _find_invalid(state: dict[str, Any]) -> list[str]:
    """Returns the names of weights that are not finite. Other states than tensors are skipped."""
    return [
        name
        for name, value in state.items()
        if isinstance(value, torch.Tensor) and not value.isfinite().all()
    ]


def _find_remedy(runner: Runner) -> tuple[Path | str, str]:
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    folders = dict.fromkeys([runner.work_dir, *(str(hook.out_dir) for hook in hooks)])
    good = find_last_finite_checkpoint(*map(Path, folders))
    if good:
        return good, f'--resume {good}, and'
    return f'none in {" or ".join(folders)}', 'from the start'


def _image_paths(data: Any) -> list[str]:
    """Yields the paths of all data samples in a nested batch."""
    if hasattr(data, 'metainfo'):
        return [str(data.metainfo.get('img_path', data.metainfo.get('img_id', 'unnamed')))]
    if isinstance(data, dict):
        data = list(data.values())
    if isinstance(data, (list, tuple)):
        return [path for item in data for path in _image_paths(item)]
    return []


def find_last_finite_checkpoint(*folders: Path) -> Path | None:
    """Finds the newest checkpoint with finite weights only.

    Args:
        folders: The folders of checkpoints (``*.pth``). Files that cannot be read are skipped.

    Returns:
        The file. None if there is none.
    """
    paths = [path for folder in folders for path in folder.glob('*.pth')]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            content = load_checkpoint(path)
        except (OSError, UnreadableCheckpointError):
            continue
        state = content.get('state_dict') if isinstance(content, dict) else None
        if state and not _find_invalid(state):
            return path
    return None
