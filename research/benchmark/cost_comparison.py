"""Compares what detectors cost: parameters, multiply-accumulates and time per image."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Any

import matplotlib.pyplot as plt
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_hadaptive.export import fuse_for_inference, prune_products
from mmdet_hadaptive.export.product_statistics import (
    collect_product_statistics,
    product_bottlenecks,
)
from mmdet_hadaptive.utils.costs import Costs, count_costs
from mmdet_hadaptive.utils.metrics import MAP

from ..input_size import input_size
from ..timing import measure_in_turn


@dataclass
class Entry:
    """A detector and what it costs, without post-processing.

    Attributes:
        name: Name of its config.
        model: The detector with random weights as it is used for inference: fused
            (:func:`mmdet_hadaptive.export.fuse_for_inference`), and branches that only training
            needs are merged where timm knows how.
        height: Height in pixels of the images that its config tests on.
        width: Width of these in pixels.
        costs: The costs of the detector before it was fused, without those branches.
        backbone_costs: The backbone's part.
        seconds: Seconds per batch, one value per round, by runtime.
    """

    name: str
    model: nn.Module
    height: int
    width: int
    costs: Costs
    backbone_costs: Costs
    seconds: dict[str, list[float]] = field(default_factory=dict)


def load_entry(config: Path, pruned: bool = False) -> Entry:
    """Builds the detector of a config and counts its costs.

    Args:
        config: Config of an MMDetection detector whose test pipeline has a ``Resize``.
        pruned: Whether a Hadaptive-Net loses its products
            (:func:`mmdet_hadaptive.export.prune_products`).

    Returns:
        The entry, not timed yet.
    """
    settings = Config.fromfile(config)
    init_default_scope(settings.get('default_scope', 'mmdet'))
    model = MODELS.build(settings.model)
    if settings.model.backbone.type == 'mmpretrain.TIMMBackbone':
        # The other networks here need no timm.
        from timm.utils.model import reparameterize_model

        model.backbone = reparameterize_model(model.backbone)
        split_activations(model.backbone)
    height, width = input_size(settings, model)
    name = config.stem
    if pruned:
        model, name = without_products(model, height, width), f'{name} without products'
    try:
        # Nothing is computed on this device.
        counted = copy.deepcopy(model).to('meta')
        costs = [count_costs(part, height, width) for part in (counted, counted.backbone)]
    except RuntimeError:
        # What happens in some detectors depends on values.
        costs = [count_costs(part, height, width) for part in (model, model.backbone)]
    model = fuse_for_inference(model, torch.zeros(1, 3, height, width))
    return Entry(name, model, height, width, *costs)


def split_activations(backbone: nn.Module) -> None:
    """Splits timm's normalisations with an activation into two layers, the first to be folded.

    Args:
        backbone: A backbone of timm. It is changed, and computes the same.
    """
    from timm.layers import BatchNormAct2d

    for module in list(backbone.modules()):
        for name, child in module.named_children():
            if type(child) is BatchNormAct2d:
                norm = nn.BatchNorm2d(child.num_features, child.eps)
                norm.load_state_dict(child.state_dict())
                setattr(module, name, nn.Sequential(norm, child.drop, child.act))


def without_products(model: nn.Module, height: int, width: int) -> nn.Module:
    """A copy of a backbone, or of a detector, whose products are all removed.

    Args:
        model: A model with random weights. It is put into eval mode, and may be changed.
        height: The height of an image in pixels.
        width: The width of an image in pixels.
    """
    backbone = getattr(model, 'backbone', model.eval())
    with collect_product_statistics(product_bottlenecks(model)) as statistics, torch.no_grad():
        backbone(torch.randn(1, 3, height, width))
    return prune_products(model, statistics, lambda model: 1.0)[0]


def measure_times(entries: Sequence[Entry], batch: int, threads: int, rounds: int) -> None:
    """Times all detectors in turn and adds their times to the entries.

    Args:
        entries: The detectors; on the device of their first parameter.
        batch: Images in a batch.
        threads: Threads of PyTorch.
        rounds: Timed calls of each, after three that are not timed.
    """
    torch.set_num_threads(threads)
    functions: dict[str, Callable[[], object]] = {}
    for entry in entries:
        device = next(entry.model.parameters()).device
        images = torch.randn(batch, 3, entry.height, entry.width, device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        functions[entry.name] = _make_eager(entry.model, images)
    times = measure_in_turn(functions, rounds, 3)
    for entry in entries:
        entry.seconds['PyTorch'] = times[entry.name]


def _make_eager(model: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    @torch.inference_mode()
    def run() -> None:
        model(images)
        if images.is_cuda:
            torch.cuda.synchronize()

    return run


def compare_entries(entries: Sequence[Entry], reference: str) -> tuple[list[str], list[list[str]]]:
    """Describes the entries with their ratios to one of them.

    Args:
        entries: The entries.
        reference: Name of the entry that the others are divided by.

    Returns:
        Headings, and for each entry the cells of its row. Times are medians; their ratios are the
        medians of the ratios in one round, with the quartiles.

    Raises:
        ValueError: If no entry is called ``reference``.
    """
    by_name = {entry.name: entry for entry in entries}
    if reference not in by_name:
        raise ValueError(f'reference must be one of {", ".join(by_name)}; got {reference}')
    base = by_name[reference]
    runtimes = list(dict.fromkeys(name for entry in entries for name in entry.seconds))
    headings = ['config', 'input', 'parameters M', 'ratio', 'MACs G', 'ratio']
    headings += ['backbone M', 'backbone G']
    headings += [f'{runtime} {column}' for runtime in runtimes for column in ('ms', 'ratio')]
    rows = []
    for entry in entries:
        row = [
            entry.name,
            f'{entry.width} x {entry.height}',
            f'{entry.costs.parameters / 1e6:.2f}',
            f'{entry.costs.parameters / base.costs.parameters:.2f}',
            f'{entry.costs.macs / 1e9:.3f}',
            f'{entry.costs.macs / base.costs.macs:.2f}',
            f'{entry.backbone_costs.parameters / 1e6:.2f}',
            f'{entry.backbone_costs.macs / 1e9:.3f}',
        ]
        for runtime in runtimes:
            row += describe_times(entry.seconds.get(runtime), base.seconds.get(runtime))
        rows.append(row)
    return headings, rows


def describe_times(own: list[float] | None, base: list[float] | None) -> list[str]:
    """Describes the times of rounds.

    Args:
        own: Seconds of each round.
        base: The values by which they are divided.

    Returns:
        Milliseconds, and the ratio with its quartiles; empty where nothing was measured.
    """
    milliseconds = f'{median(own) * 1e3:.1f}' if own else ''
    if not own or not base:
        return [milliseconds, '']
    ratios = (a / b for a, b in zip(own, base, strict=True))
    low, middle, high = quantiles(ratios, n=4, method='inclusive')
    return [milliseconds, f'{middle:.2f} ({low:.2f} to {high:.2f})']


def draw_accuracy(entries: Iterable[Entry], results: Iterable[dict[str, Any]], out: Path) -> None:
    """Draws accuracy over measured time, or over multiply-accumulates.

    Args:
        entries: The detectors; those without a result are left out. Over PyTorch's times if all
            others have them.
        results: The results of :func:`research.benchmark.accuracy.train_all`; of several
            seeds the mean is drawn, with a line from the smallest to the largest.
        out: The picture, PNG or what its suffix says.

    Raises:
        ValueError: If no entry has a result.
    """
    values: dict[str, list[float]] = {}
    for result in results:
        values.setdefault(result['config'], []).append(result[MAP])
    scored = [entry for entry in entries if entry.name in values]
    if not scored:
        raise ValueError(
            f'none of the results ({", ".join(values)}) is of a config that was given: name their '
            'configs as well'
        )
    # The legend names the best first.
    scored.sort(key=lambda entry: fmean(values[entry.name]), reverse=True)
    figure, axes = plt.subplots(figsize=(8, 4.5), layout='constrained')
    timed = all('PyTorch' in entry.seconds for entry in scored)
    # Ours are red, and none of the others.
    tab20 = plt.get_cmap('tab20').colors
    reds, colors = cycle(('tab:red', 'darkred', 'lightcoral')), cycle(tab20[:6] + tab20[8:])
    for entry in scored:
        ours = 'hadaptive' in entry.name
        seeds = values[entry.name]
        mean = fmean(seeds)
        axes.errorbar(
            median(entry.seconds['PyTorch']) * 1e3 if timed else entry.costs.macs / 1e9,
            mean,
            yerr=[[mean - min(seeds)], [max(seeds) - mean]],
            fmt='*' if ours else 'o',
            markersize=14 if ours else 7,
            color=next(reds if ours else colors),
            capsize=3,
            label=entry.name.split('_')[1],
        )
    figure.legend(loc='outside right center')
    cost = 'milliseconds per batch, PyTorch' if timed else 'multiply-accumulates (G) per image'
    axes.set(xlabel=cost, ylabel='mAP')
    axes.grid(alpha=0.3)
    figure.savefig(out, dpi=150)
    plt.close(figure)
