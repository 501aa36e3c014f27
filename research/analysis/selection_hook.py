"""Records during a training what the Adaptive Cross-Hadamard layers select."""

import io
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import torch
from mmdet.registry import HOOKS
from mmengine.dataset import pseudo_collate
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmdet_hadaptive.engine.train_loop import ResumableTrainLoop
from mmdet_hadaptive.export.product_statistics import (
    collect_product_statistics,
    product_bottlenecks,
)
from mmdet_hadaptive.utils.files import write_whole

from .selection_plots import draw_channels, draw_feature_maps, draw_pairs
from .selection_statistics import SelectionStatistics, adaptive_layers, collect_statistics


@HOOKS.register_module()
class SelectionHook(Hook):
    """Shows what the layers learn to select, over the training and on the validation set.

    Scalars go to every backend of the run's visualizer, under ``ach/LAYER/`` for the training
    (over the epoch so far) and ``ach_val/LAYER/`` for the validation: temperature, entropy of
    the scores, and the effective numbers of channels and pairs
    (:meth:`SelectionStatistics.scalars`); and for the validation ``product_share``, how much of
    the output of the bottleneck comes from its products (:attr:`ProductStatistics.share`).

    At the end the folder ``selection`` of the work directory gets, also for resumed runs as a
    whole: ``channels.png`` (how often each channel was selected, over the epochs),
    ``pairs.png`` (each pair, on the validation set, or in the last epoch if there is none),
    ``frequencies.pt`` (these numbers), and, if there is a validation set,
    ``features_LAYER.png`` for its first image.

    Args:
        interval: Iterations between the scalars of the training.

    Raises:
        ValueError: At the start, if ``interval`` is below 1, the model has no such layer, or the
            training may resume within an epoch, of which the hook would count a part only.
    """

    # Before the checkpoint hook, which is to save the history.
    priority = 'LOW'

    def __init__(self, interval: int = 50) -> None:
        if interval < 1:
            raise ValueError(f'interval must be at least 1, got {interval}')
        self.interval = interval
        self.history: dict[str, list[Tensor]] = {}
        self.pairs: dict[str, Tensor] = {}

    def before_train(self, runner: Runner) -> None:
        """Finds the layers."""
        if isinstance(runner.train_loop, ResumableTrainLoop):
            raise ValueError(
                'SelectionHook counts whole epochs, ResumableTrainLoop resumes within one: remove '
                "the hook, or set train_cfg.type='EpochBasedTrainLoop'"
            )
        adaptive_layers(_unwrapped(runner))

    def before_train_epoch(self, runner: Runner) -> None:
        """Starts to count."""
        self._train = ExitStack()
        self._train_layers = adaptive_layers(_unwrapped(runner))
        self._train_counts = self._train.enter_context(collect_statistics(self._train_layers))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Writes scalars."""
        if self.every_n_train_iters(runner, self.interval):
            scalars = _describe(runner, 'ach', self._train_counts)
            runner.visualizer.add_scalars(scalars, step=runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Adds the epoch to the history."""
        self._train.close()
        _join(self._train_counts)
        for name, counts in self._train_counts.items():
            self.history.setdefault(name, []).append(counts.channel_frequencies.cpu())
            self.pairs[name] = counts.pair_frequencies.cpu()

    def before_val_epoch(self, runner: Runner) -> None:
        """Starts to count."""
        self._val = ExitStack()
        model = _unwrapped(runner)
        self._val_counts = self._val.enter_context(collect_statistics(adaptive_layers(model)))
        self._val_products = self._val.enter_context(
            collect_product_statistics(product_bottlenecks(model))
        )

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Writes scalars."""
        self._val.close()
        _join(self._val_counts)
        for statistics in self._val_products.values():
            for value in statistics.sums.values():
                all_reduce(value)
        scalars = _describe(runner, 'ach_val', self._val_counts)
        for name, products in self._val_products.items():
            scalars[f'ach_val/{name}/product_share'] = products.share
        runner.visualizer.add_scalars(scalars, step=runner.epoch)
        self.pairs = {
            name: counts.pair_frequencies.cpu() for name, counts in self._val_counts.items()
        }

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Saves the history."""
        checkpoint['selection_history'] = self.history

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Restores the history of a resumed run."""
        if runner._resume:
            self.history = checkpoint.get('selection_history', {})

    def after_train(self, runner: Runner) -> None:
        """Draws the pictures."""
        # A run that was resumed after its end has trained nothing, and its pictures are there.
        if not is_main_process() or not self.pairs:
            return
        folder = Path(runner.work_dir) / 'selection'
        folder.mkdir(exist_ok=True)
        history = {name: torch.stack(rows) for name, rows in self.history.items()}
        numbers = io.BytesIO()
        torch.save(dict(channels=history, pairs=self.pairs), numbers)
        write_whole(numbers.getvalue(), folder / 'frequencies.pt')
        draw_channels(history, folder / 'channels.png', 'Selected channels in training', 'epoch')
        draw_pairs(self.pairs, folder / 'pairs.png', 'Selected pairs of channels')
        pictures = [folder / 'channels.png', folder / 'pairs.png']
        if runner.val_loop is not None:
            model = _unwrapped(runner)
            batch = pseudo_collate([runner.val_dataloader.dataset[0]])
            images = model.data_preprocessor(batch, False)['inputs']
            pictures += draw_feature_maps(model.backbone.eval(), images, folder)
        for path in pictures:
            image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            runner.visualizer.add_image(f'selection/{path.stem}', image, runner.epoch)
        runner.logger.info(f'What the layers selected: {folder}')


def _describe(
    runner: Runner, group: str, counts: dict[str, SelectionStatistics]
) -> dict[str, float]:
    layers = adaptive_layers(_unwrapped(runner))
    return {
        f'{group}/{name}/{key}': value
        for name, statistics in counts.items()
        for key, value in dict(
            temperature=layers[name].temperature.item(), **statistics.scalars()
        ).items()
    }


def _unwrapped(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _join(counts: dict[str, SelectionStatistics]) -> None:
    """Adds up what all processes have counted."""
    for statistics in counts.values():
        for value in (statistics.pair_counts, statistics.num_images, statistics.entropy_sum):
            all_reduce(value)
