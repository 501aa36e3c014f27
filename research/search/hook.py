"""Searches an architecture while a detector, or a classifier, is trained."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce, broadcast, is_main_process
from mmengine.hooks import Hook
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from mmdet_hadaptive.models.norms import FixedRunningStatistics
from mmdet_hadaptive.utils.files import write_whole

from ..input_size import input_size
from .costs import CostTable, count_candidates, find_most_probable, read_costs, time_candidates
from .loop import ArchitectureSearchLoop, find_sampler
from .result import draw_choices, find_base, render_config, render_result
from .search_net import HadaptiveSearchNet
from .search_spaces import describe_candidate

_QUANTITIES = ('macs', 'latency_ms')
# The draws of an iteration, at most, and a number far beyond those of a training.
_DRAWS = 3
_STRIDE = 1_000_000_007


@HOOKS.register_module()
class ArchitectureSearchHook(Hook):
    """Learns the architecture parameters of a :class:`HadaptiveSearchNet`; writes what it finds.

    After each update of the weights, the architecture parameters are updated on a batch of the
    other half of the training set (:class:`ArchitectureSearchLoop`), by an AdamW of their own, with
    the model's loss and ``cost_weight * |expected cost / target - 1|``. Neither weights nor
    running statistics change by that. It is computed in single precision, whatever the training's.
    The temperature falls along a cosine, from epoch to epoch.

    Each checkpoint holds the state of the search, and the folder ``search`` of the work directory
    gets, written whole: ``architecture.py``, a config that trains the most probable network whose
    cost is within 5 % of the target (:func:`find_most_probable`) from scratch, by what the
    search's config inherits; ``architecture.json``, its table, the probabilities and costs of all
    candidates, and how they developed; ``costs.json``; and in the end ``choices.png``.

    Source: arXiv 1910.04465 (GDAS); arXiv 2505.22226, section 3.4; arXiv 2008.06120 (TuNAS), the
    penalty.

    Args:
        target: What the backbone is to cost for one image of the size on which the config tests:
            ``dict(macs=...)``, or ``dict(latency_ms=...)``, the sum of its blocks, fused, as
            measured on this machine at the start. With a key ``costs``, a ``costs.json`` to be
            read instead.
        cost_weight: The weight of the penalty.
        lr: Learning rate of the architecture parameters.
        betas: The betas of their AdamW.
        weight_decay: The weight decay of their AdamW.
        estimator: The estimator of the loss's gradient. 'straight-through', as GDAS, the gradient
            of the numbers by which the outputs of the drawn candidates are multiplied. Where an
            output is normalised next, it has next to none, as its scale changes nothing.
            'score-function', as REINFORCE: two networks are drawn for each batch, and the one
            whose loss is lower becomes more probable, the other being its baseline; this needs
            no backward pass.
        temperatures: The temperatures of the Gumbel softmax in the first and the last epoch.

    Raises:
        ValueError: If ``target`` or ``estimator`` is not as described, or, before the training
            starts, if no network of the space costs what is asked for, ``costs`` are those of
            another space, the training is no search, or the data set is not that of the checkpoint
            from which it is resumed.
        FloatingPointError: At the first loss of the architecture parameters that is not finite.
    """

    # After a loss that is no number has been found, before weights are averaged.
    priority = 'ABOVE_NORMAL'

    def __init__(
        self,
        target: Mapping[str, Any],
        cost_weight: float = 1.0,
        lr: float = 3e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        weight_decay: float = 1e-3,
        estimator: Literal['straight-through', 'score-function'] = 'straight-through',
        temperatures: tuple[float, float] = (4.0, 0.1),
    ) -> None:
        quantities = target.keys() & set(_QUANTITIES)
        if len(quantities) != 1 or target.keys() - quantities - {'costs'}:
            raise ValueError(
                f'target must be dict(macs=...) or dict(latency_ms=...), got {dict(target)}'
            )
        (self.quantity,) = quantities
        self.target = float(target[self.quantity])
        if not (math.isfinite(self.target) and self.target > 0):
            raise ValueError(f'{self.quantity} of target must be above 0, got {self.target}')
        if estimator not in ('straight-through', 'score-function'):
            raise ValueError(
                f"estimator must be 'straight-through' or 'score-function', got {estimator!r}"
            )
        self.estimator = estimator
        self.costs_file = target.get('costs')
        self.cost_weight = cost_weight
        self.optimizer_options = dict(lr=lr, betas=tuple(betas), weight_decay=weight_decay)
        self.temperatures = temperatures
        self.history: list[dict[str, Any]] = []
        self._restored: dict[str, Any] | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keeps the state of a resumed search."""
        if runner._resume:
            self._restored = checkpoint.get('architecture_search')

    def before_train(self, runner: Runner) -> None:
        """Checks the search, and prepares or restores its state."""
        model = _unwrapped(runner)
        self.net = model.backbone
        _check_training(runner, self.net)
        self.base = find_base(runner.cfg.filename)
        state = self._restored
        self.split = torch.tensor(find_sampler(runner.train_dataloader).indices)
        self.costs = CostTable(**state['costs']) if state else self._find_costs(runner, model)
        self._check_target()
        self.optimizer = torch.optim.AdamW([self.net.logits], **self.optimizer_options)
        if state:
            if not torch.equal(state['split'], self.split):
                raise ValueError(
                    'the halves of the training set are not those of the checkpoint: resume with '
                    'the same images and the same train_cfg.split_seed'
                )
            self.optimizer.load_state_dict(state['optimizer'])
            self.history = state['history']
        if is_main_process():
            write_whole(self.costs.to_json(), self._folder(runner) / 'costs.json')

    def before_train_epoch(self, runner: Runner) -> None:
        """Sets the temperature, and starts with the other half of the images."""
        first, last = self.temperatures
        progress = runner.epoch / max(runner.max_epochs - 1, 1)
        self.net.temperature = last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
        loader = runner.train_loop.architecture_dataloader
        # EpochSeedHook has changed it, if it is there.
        loader.worker_init_fn = runner.train_dataloader.worker_init_fn
        find_sampler(loader).set_epoch(runner.epoch)
        self._batches = iter(loader)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Lets the draws follow from the run's seed and the iteration alone."""
        self.net.draw_seed = _STRIDE * runner.seed + _DRAWS * runner.iter

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Updates the architecture parameters."""
        logits = self.net.logits
        batch = next(self._batches, None)
        if batch is None:
            # Where images are repeated, the halves may differ in length.
            self._batches = iter(runner.train_loop.architecture_dataloader)
            batch = next(self._batches)
        loss, cost, gradient = self.compute_gradient(_unwrapped(runner), batch)
        log = dict(architecture_loss=loss.item(), expected_cost=cost.item() / self.target)
        for name, value in log.items():
            runner.message_hub.update_scalar(f'train/{name}', value)
        if not math.isfinite(log['architecture_loss']):
            raise FloatingPointError(
                f'the loss of the architecture parameters is not finite in iteration '
                f'{runner.iter + 1}: resume with a lower learning rate of the weights'
            )
        all_reduce(gradient, 'mean')
        logits.grad = gradient
        self.optimizer.step()
        logits.grad = None

    def compute_gradient(self, model: BaseModel, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient of the architecture parameters for a batch of this process.

        Args:
            model: Detector or classifier, in training mode. Its weights, their gradients and its
                running statistics stay as they are.
            batch: The batch that the loader gives.

        Returns:
            The model's loss, the expected cost, and the gradient, shaped as ``logits``, of the
            sum of loss and penalty.
        """
        logits = self.net.logits.requires_grad_(True)
        data = model.data_preprocessor(batch, True)
        try:
            with FixedRunningStatistics(model):
                if self.estimator == 'straight-through':
                    loss = objective = _find_loss(model, data)
                else:
                    loss, objective = self._compare_draws(model, data)
                cost = self.costs.expected(self.net.log_probabilities().exp())
                penalty = self.cost_weight * (cost / self.target - 1).abs()
                (gradient,) = torch.autograd.grad(objective + penalty, logits)
        finally:
            logits.requires_grad_(False)
        return loss.detach(), cost.detach(), gradient

    def _compare_draws(self, model: BaseModel, data: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The mean loss of two draws, and what has the gradient of its expectation."""
        losses, scores = [], []
        for _ in range(2):
            with torch.no_grad():
                losses.append(_find_loss(model, data))
            drawn = torch.tensor(self.net.drawn, device=losses[0].device)
            scores.append(self.net.log_probabilities().gather(1, drawn[:, None]).sum())
        return sum(losses) / 2, (losses[0] - losses[1]) * (scores[0] - scores[1]) / 2

    def after_train_epoch(self, runner: Runner) -> None:
        """Records what has been learnt."""
        self._batches = None
        rows = self._probabilities()
        cost = self.costs.expected(self.net.log_probabilities().exp()).item() / self.target
        self.history.append(
            dict(temperature=self.net.temperature, expected_cost=cost, probabilities=rows)
        )
        scalars = {
            f'search/{name}/{describe_candidate(candidate)}': probability
            for name, candidates, row in zip(
                self.net.choice_names, self.net.candidates, rows, strict=True
            )
            for candidate, probability in zip(candidates, row, strict=True)
        }
        scalars |= {'search/temperature': self.net.temperature, 'search/expected_cost': cost}
        runner.visualizer.add_scalars(scalars, step=runner.iter)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Saves the state of the search, and writes what it has found so far."""
        checkpoint['architecture_search'] = dict(
            optimizer=self.optimizer.state_dict(),
            history=self.history,
            split=self.split,
            costs=dict(vars(self.costs)),
        )
        if is_main_process():
            self._write(runner)

    def after_train(self, runner: Runner) -> None:
        """Writes what has been found."""
        if not is_main_process():
            return
        indices = self._write(runner)
        folder = self._folder(runner)
        picture = folder / 'choices.png'
        if self.history:
            draw_choices(self.net.choice_names, self.net.candidates, self.history, picture)
        taken = 'the most probable candidates'
        if indices != self.net.most_probable():
            taken = 'the most probable network of the cost asked for, not the most probable of all'
        runner.logger.info(
            f'Found: {folder / "architecture.py"}, {self.costs.total(indices) / self.target:.3f} '
            f'of the cost asked for; {taken}'
        )

    def _find_costs(self, runner: Runner, model: BaseModel) -> CostTable:
        if self.costs_file:
            costs = read_costs(self.costs_file)
            shape = [len(row) for row in costs.candidates]
            if costs.quantity != self.quantity or shape != [len(c) for c in self.net.candidates]:
                raise ValueError(
                    f'{self.costs_file} has no {self.quantity} of the candidates of this space'
                )
            return costs
        size = input_size(runner.cfg, model)
        if self.quantity == 'macs':
            return count_candidates(self.net, *size)
        costs = time_candidates(self.net, *size)
        # All processes use what the first one has measured.
        counts = [len(row) for row in costs.candidates]
        values = torch.tensor([costs.fixed, *(c for row in costs.candidates for c in row)])
        values = values.double().to(self.net.logits.device)
        broadcast(values)
        fixed, rest = values[:1].item(), values[1:].cpu()
        return CostTable('latency_ms', fixed, [part.tolist() for part in rest.split(counts)])

    def _check_target(self) -> None:
        uniform = torch.zeros(self.net.logits.shape)
        if find_most_probable(self.costs, uniform, self.target) is None:
            least, most = self.costs.limits
            raise ValueError(
                f'no network of the space costs {self.quantity}={self.target:g} up to 5 %: they '
                f'reach from {least:g} to {most:g} (the backbone alone, one image)'
            )

    def _probabilities(self) -> list[list[float]]:
        rows = self.net.log_probabilities().exp().tolist()
        return [row[: len(c)] for row, c in zip(rows, self.net.candidates, strict=True)]

    def _folder(self, runner: Runner) -> Path:
        return Path(runner.work_dir) / 'search'

    def _write(self, runner: Runner) -> list[int]:
        """Writes the config and the numbers, and returns the candidates that were taken."""
        log_probabilities = self.net.log_probabilities()
        indices = find_most_probable(self.costs, log_probabilities, self.target)
        cost, table = self.costs.total(indices), self.net.table(indices)
        config = runner.cfg.filename
        epochs = len(self.history)
        text = render_config(
            self.base,
            runner.cfg.model.backbone.to_dict(),
            table,
            [
                f'Found by {Path(config).name} after {epochs} of {runner.max_epochs} epochs:',
                f'{self.quantity} of the backbone {cost:g}, asked for were {self.target:g}.',
            ],
        )
        choices = [
            dict(name=name, candidates=candidates, taken=index, probabilities=row, costs=costs)
            for name, candidates, index, row, costs in zip(
                self.net.choice_names, self.net.candidates, indices, self._probabilities(),
                self.costs.candidates, strict=True,
            )
        ]  # fmt: skip
        content = dict(
            config=str(config), epochs=epochs, seed=runner.seed, quantity=self.quantity,
            target=self.target, cost=cost, table=table, choices=choices, history=self.history,
        )  # fmt: skip
        write_whole(text, self._folder(runner) / 'architecture.py')
        write_whole(render_result(content), self._folder(runner) / 'architecture.json')
        return indices


def _unwrapped(runner: Runner) -> BaseModel:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _find_loss(model: BaseModel, data: dict[str, Any]) -> Tensor:
    return model.parse_losses(model(**data, mode='loss'))[0]


def _check_training(runner: Runner, net: Any) -> None:
    if not isinstance(net, HadaptiveSearchNet):
        raise ValueError(
            'ArchitectureSearchHook searches with model.backbone.type='
            f"'HadaptiveSearchNet', got {type(net).__name__}"
        )
    if not isinstance(runner.train_loop, ArchitectureSearchLoop):
        raise ValueError(
            'ArchitectureSearchHook needs the two halves of the training set: set '
            "train_cfg.type='ArchitectureSearchLoop'"
        )
    if is_model_wrapper(runner.model) and not getattr(runner.model, 'find_unused_parameters', True):
        raise ValueError(
            'candidates that are not drawn have no gradient: with several processes a search needs '
            'find_unused_parameters=True in its config'
        )
