"""What the candidates of a search cost, and the tables that cost what was asked for."""

import copy
import json
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mmdet_hadaptive.export import fuse_for_inference
from mmdet_hadaptive.utils.costs import count_macs

from ..timing import measure_in_turn
from .search_net import HadaptiveSearchNet
from .search_spaces import Candidate

TOLERANCE = 0.05
# Costs that differ by less than this part of the target are taken for equal on the way.
_STEPS = 1000
_ROUNDS, _WARMUP = 30, 5


@dataclass(frozen=True)
class CostTable:
    """The cost of a network of a space is a sum: of what all have, and of one candidate a choice.

    Attributes:
        quantity: 'macs', multiply-accumulates, or 'latency_ms'; of the backbone, for one image.
        fixed: Cost of the blocks that are no choice.
        candidates: For each choice the cost of each candidate.
    """

    quantity: str
    fixed: float
    candidates: list[list[float]]

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the most that a network of the space costs."""
        least, most = (sum(map(limit, self.candidates)) for limit in (min, max))
        return self.fixed + least, self.fixed + most

    def total(self, indices: Sequence[int]) -> float:
        """The cost of the network with one candidate of each choice."""
        costs = zip(self.candidates, indices, strict=True)
        return self.fixed + sum(row[index] for row, index in costs)

    def expected(self, probabilities: Tensor) -> Tensor:
        """The mean cost of the networks that are drawn.

        Args:
            probabilities: (choices, most candidates of any), float32.

        Returns:
            A scalar, with the gradient of the probabilities.
        """
        rows = torch.zeros(probabilities.shape)
        for row, costs in zip(rows, self.candidates, strict=True):
            row[: len(costs)] = torch.tensor(costs)
        return self.fixed + (probabilities * rows.to(probabilities)).sum()

    def to_json(self) -> str:
        """The table as text, as :func:`read_costs` reads it."""
        return json.dumps(asdict(self))


def read_costs(path: str | Path) -> CostTable:
    """Reads a table that :meth:`CostTable.to_json` has written."""
    return CostTable(**json.loads(Path(path).read_text()))


def count_candidates(net: HadaptiveSearchNet, height: int, width: int) -> CostTable:
    """Counts the multiply-accumulates of each candidate.

    Args:
        net: The network; it is not changed.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        The table; as :func:`count_costs` counts.
    """
    net = copy.deepcopy(net).to('meta').eval()
    costs = {
        module: count_macs(lambda module=module, x=x: module(x))
        for _, modules, x in _walk(net, torch.zeros(1, 3, height, width, device='meta'))
        for module in modules
    }
    return _sum_up(net, 'macs', costs.__getitem__)


def time_candidates(net: HadaptiveSearchNet, height: int, width: int) -> CostTable:
    """Measures how long each candidate takes, fused, for one image on the device of the network.

    Args:
        net: The network; it is not changed.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        The table, of medians in milliseconds; equal candidates at equal inputs are measured once.
    """
    net = copy.deepcopy(net).eval()
    device = net.logits.device
    keys: dict[nn.Module, str] = {}
    functions: dict[str, Callable[[], object]] = {}
    for blocks, modules, x in _walk(net, torch.zeros(1, 3, height, width, device=device)):
        for block, module in zip(blocks or [len(keys)], modules, strict=True):
            keys[module] = key = f'{block} of {tuple(x.shape)}'
            if key not in functions and not isinstance(module, nn.Identity):
                functions[key] = _timed(module, torch.rand_like(x))
    with torch.no_grad():
        seconds = measure_in_turn(functions, _ROUNDS, _WARMUP)
    medians = {key: 1000 * statistics.median(values) for key, values in seconds.items()}
    return _sum_up(
        net,
        'latency_ms',
        lambda module: 0.0 if isinstance(module, nn.Identity) else medians[keys[module]],
    )


def _timed(module: nn.Module, x: Tensor) -> Callable[[], object]:
    fused = fuse_for_inference(module, x)
    x = x.to(memory_format=torch.channels_last)

    def run() -> None:
        fused(x)
        if x.is_cuda:
            torch.cuda.synchronize()

    return run


@torch.no_grad()
def _walk(
    net: HadaptiveSearchNet, x: Tensor
) -> Iterator[tuple[list[Candidate] | None, list[nn.Module], Tensor]]:
    """What the network has in each place, and an input of it."""
    for blocks, modules in net.places():
        yield blocks, modules, x
        x = modules[0](x)


def _sum_up(
    net: HadaptiveSearchNet, quantity: str, cost: Callable[[nn.Module], float]
) -> CostTable:
    fixed, candidates = 0.0, []
    for blocks, modules in net.places():
        costs = [float(cost(module)) for module in modules]
        if blocks is None:
            fixed += costs[0]
        else:
            candidates.append(costs)
    return CostTable(quantity, fixed, candidates)


def draw_network(
    costs: CostTable, target: float, seed: int, tolerance: float = TOLERANCE
) -> list[int]:
    """Draws one of all networks that cost what is asked for: what a search has to be better than.

    Args:
        costs: The costs of the candidates.
        target: What the network is to cost, in the unit of the table.
        seed: Seed of the draw.
        tolerance: Part of the target by which the cost may differ.

    Returns:
        For each choice the place of a candidate; all choices of that cost are equally probable, and
        so is a network by how many of them make it: where nothing may be chosen, several do.

    Raises:
        ValueError: If there is no such network among a hundred thousand that are drawn.
    """
    generator = random.Random(seed)
    for _ in range(100_000):
        indices = [generator.randrange(len(row)) for row in costs.candidates]
        if abs(costs.total(indices) / target - 1) <= tolerance:
            return indices
    raise ValueError(f'of 100,000 networks none costs {target:g}; all do {costs.limits}')


def find_most_probable(
    costs: CostTable, log_probabilities: Tensor, target: float, tolerance: float = TOLERANCE
) -> list[int] | None:
    """The most probable network of those that cost what was asked for.

    Dynamic programming over choices and costs. The candidates with the largest probabilities are
    the result if they fit together. Networks on the way whose costs differ by less than a
    thousandth of the target are taken for equal, so that otherwise one that is a little more
    probable may be missed; the cost of the result is exact.

    Args:
        costs: The costs of the candidates.
        log_probabilities: (choices, most candidates of any).
        target: What the network is to cost, in the unit of the table.
        tolerance: Part of the target by which the cost may differ.

    Returns:
        For each choice the place of a candidate; None if there is no such network.
    """
    for steps in (_STEPS, 10 * _STEPS, 100 * _STEPS):
        found = _find_most_probable(costs, log_probabilities, target, tolerance, steps)
        # A more probable network of nearly the same cost may have displaced the only ones that fit.
        if found:
            return found
    return None


def _find_most_probable(
    costs: CostTable, log_probabilities: Tensor, target: float, tolerance: float, steps: int
) -> list[int] | None:
    best: dict[int, tuple[float, float, tuple[int, ...]]] = {0: (0.0, costs.fixed, ())}
    for row, logs in zip(costs.candidates, log_probabilities.tolist(), strict=True):
        extended: dict[int, tuple[float, float, tuple[int, ...]]] = {}
        for log_probability, cost, indices in best.values():
            for index, (added, log) in enumerate(zip(row, logs, strict=False)):
                entry = (log_probability + log, cost + added, (*indices, index))
                place = round(entry[1] / target * steps)
                if entry[1] <= target * (1 + tolerance) and (
                    place not in extended or entry[0] > extended[place][0]
                ):
                    extended[place] = entry
        best = extended
    fitting = [entry for entry in best.values() if entry[1] >= target * (1 - tolerance)]
    return list(max(fitting)[2]) if fitting else None
