"""Compares what detectors cost: parameters, multiply-accumulates and time per image."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from ..analysis.costs import count_costs, input_size
from ..deploy import fuse_for_inference
from .timing import measure_in_turn


@dataclass
class Entry:
    """A detector and what it costs, without post-processing.

    Attributes:
        name: Name of its config.
        model: The detector with random weights as it is used for inference: fused
            (:func:`mmdet_hadaptive.deploy.fuse_for_inference`), and branches that only training
            needs are merged where timm knows how.
        height: Height in pixels of the images that its config tests on.
        width: Width of these in pixels.
        parameters: Trainable parameters.
        macs: Multiply-accumulates for one image.
        backbone_parameters: The backbone's part.
        backbone_macs: The backbone's part.
        seconds: Seconds per batch, one value per round, by runtime.
    """

    name: str
    model: nn.Module
    height: int
    width: int
    parameters: int
    macs: int
    backbone_parameters: int
    backbone_macs: int
    seconds: dict[str, list[float]] = field(default_factory=dict)


def load_entry(config: Path) -> Entry:
    """Builds the detector of a config and counts its costs.

    Args:
        config: Config of an MMDetection detector whose test pipeline has a ``Resize``.

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
    height, width = input_size(settings, model)
    try:
        # Nothing is computed on this device.
        counted = copy.deepcopy(model).to('meta')
        costs = [count_costs(part, height, width) for part in (counted, counted.backbone)]
    except RuntimeError:
        # What happens in some detectors depends on values.
        costs = [count_costs(part, height, width) for part in (model, model.backbone)]
    model = fuse_for_inference(model)
    return Entry(config.stem, model, height, width, *costs[0], *costs[1])


def measure(
    entries: Sequence[Entry], batch: int, threads: int, rounds: int, onnx: Path | None = None
) -> None:
    """Times all detectors in turn and adds their times to the entries.

    Args:
        entries: The detectors; on the device of their first parameter.
        batch: Images in a batch.
        threads: Threads of PyTorch and of ONNX Runtime.
        rounds: Timed calls of each, after three that are not timed.
        onnx: Folder with NAME.onnx for those that are to run in ONNX Runtime as well; the graph
            has one input, images (batch, 3, height, width) in float32.
    """
    torch.set_num_threads(threads)
    functions: dict[str, Callable[[], object]] = {}
    for entry in entries:
        device = next(entry.model.parameters()).device
        images = torch.randn(batch, 3, entry.height, entry.width, device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        functions[f'PyTorch {entry.name}'] = _eager(entry.model, images)
        if onnx is not None and (file := onnx / f'{entry.name}.onnx').is_file():
            functions[f'ONNX Runtime {entry.name}'] = _session(
                file, images.contiguous().cpu().numpy(), threads
            )
    times = measure_in_turn(functions, rounds, 3)
    for entry in entries:
        for runtime in ('PyTorch', 'ONNX Runtime'):
            if f'{runtime} {entry.name}' in times:
                entry.seconds[runtime] = times[f'{runtime} {entry.name}']


def _eager(model: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    @torch.inference_mode()
    def run() -> None:
        model(images)
        if images.is_cuda:
            torch.cuda.synchronize()

    return run


def _session(file: Path, images: np.ndarray, threads: int) -> Callable[[], object]:
    # Costs alone need no ONNX Runtime.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait by turning round would slow down whoever has the next turn.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
    inputs = {session.get_inputs()[0].name: images}
    return lambda: session.run(None, inputs)


def rows(entries: Sequence[Entry], reference: str) -> list[dict[str, str]]:
    """Describes the entries with their ratios to one of them.

    Args:
        entries: The entries.
        reference: Name of the entry that the others are divided by.

    Returns:
        For each entry the cells of its row by their headings. Times are medians; their ratios are
        the medians of the ratios in one round, with the quartiles.

    Raises:
        ValueError: If no entry is called ``reference``.
    """
    by_name = {entry.name: entry for entry in entries}
    if reference not in by_name:
        raise ValueError(f'reference must be one of {", ".join(by_name)}; got {reference}')
    base = by_name[reference]
    runtimes = list(dict.fromkeys(name for entry in entries for name in entry.seconds))
    table = []
    for entry in entries:
        cells = {
            'config': entry.name,
            'input': f'{entry.width} x {entry.height}',
            'parameters M': f'{entry.parameters / 1e6:.2f}',
            'ratio': f'{entry.parameters / base.parameters:.2f}',
            'MACs G': f'{entry.macs / 1e9:.3f}',
            'ratio ': f'{entry.macs / base.macs:.2f}',
            'backbone M': f'{entry.backbone_parameters / 1e6:.2f}',
            'backbone G': f'{entry.backbone_macs / 1e9:.3f}',
        }
        for runtime in runtimes:
            own, others = entry.seconds.get(runtime), base.seconds.get(runtime)
            cells[f'{runtime} ms'] = f'{median(own) * 1e3:.1f}' if own else ''
            if own and others:
                low, middle, high = quantiles(
                    (a / b for a, b in zip(own, others, strict=True)), n=4, method='inclusive'
                )
                cells[f'{runtime} ratio'] = f'{middle:.2f} ({low:.2f} to {high:.2f})'
            else:
                cells[f'{runtime} ratio'] = ''
        table.append(cells)
    return table


def markdown(table: Sequence[dict[str, str]]) -> str:
    """Writes rows with the same headings as a Markdown table."""
    lines = [table[0], dict.fromkeys(table[0], '---'), *table]
    texts = [line.values() if number else line.keys() for number, line in enumerate(lines)]
    return ''.join(f'| {" | ".join(text.strip() for text in cells)} |\n' for cells in texts)


def draw(entries: Iterable[Entry], results: Iterable[dict[str, Any]], out: Path) -> None:
    """Draws accuracy over multiply-accumulates.

    Args:
        entries: The detectors; those without a result are left out.
        results: As :func:`mmdet_hadaptive.benchmark.accuracy.train_all` returns them; of several
            seeds the mean is drawn, with a line from the smallest to the largest.
        out: The picture, PNG or what its suffix says.

    Raises:
        ValueError: If no entry has a result.
    """
    values: dict[str, list[float]] = {}
    for result in results:
        values.setdefault(result['config'], []).append(result['coco/bbox_mAP'])
    known = [entry for entry in entries if entry.name in values]
    if not known:
        raise ValueError(
            f'none of the results ({", ".join(values)}) is of a config that was given: name their '
            'configs as well'
        )
    # The legend names the best first.
    known.sort(key=lambda entry: fmean(values[entry.name]), reverse=True)
    figure, axes = plt.subplots(figsize=(8, 4.5), layout='constrained')
    # Ours are red, and none of the others.
    tab20 = plt.get_cmap('tab20').colors
    reds, colors = cycle(('tab:red', 'darkred', 'lightcoral')), cycle(tab20[:6] + tab20[8:])
    for entry in known:
        ours = 'hadaptive' in entry.name
        seeds = values[entry.name]
        mean = fmean(seeds)
        axes.errorbar(
            entry.macs / 1e9,
            mean,
            yerr=[[mean - min(seeds)], [max(seeds) - mean]],
            fmt='*' if ours else 'o',
            markersize=14 if ours else 7,
            color=next(reds if ours else colors),
            capsize=3,
            label=entry.name.split('_')[1],
        )
    figure.legend(loc='outside right center')
    axes.set(xlabel='multiply-accumulates (G) per image', ylabel='mAP')
    axes.grid(alpha=0.3)
    figure.savefig(out, dpi=150)
    plt.close(figure)
