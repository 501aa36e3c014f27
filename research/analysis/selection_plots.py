"""Pictures of what Adaptive Cross-Hadamard layers select."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from mmdet_hadaptive.ops import pairwise_products

from .selection_statistics import adaptive_layers, observe_selections


def draw_channels(
    history: Mapping[str, Tensor], out_file: str | Path, title: str, row_label: str
) -> None:
    """Draws how often each channel is selected, a panel for each layer.

    Args:
        history: Per layer (rows, C), in 0..1; say a row for each epoch.
        out_file: Picture to write.
        title: Heading.
        row_label: What a row is.
    """
    longest = max(len(rows) for rows in history.values())
    height = min(0.9 + 0.05 * longest, 2.5)
    figure = Figure(figsize=(11, 1.2 + height * len(history)), layout='constrained')
    figure.suptitle(title)
    panels = figure.subplots(len(history), 1, squeeze=False)[:, 0]
    most = max(rows.max().item() for rows in history.values())
    for axis, (name, rows) in zip(panels, history.items(), strict=True):
        image = axis.imshow(rows.numpy(), aspect='auto', interpolation='nearest', vmin=0, vmax=most)
        axis.set(title=name, ylabel=row_label)
        step = -(-len(rows) // 8)
        axis.set_yticks(*([], []) if len(rows) == 1 else _numbers(len(rows), step))
    panels[-1].set_xlabel('channel')
    figure.colorbar(image, ax=panels, label='share of the images in which it is selected')
    figure.savefig(out_file, dpi=110)


def _numbers(count: int, step: int) -> tuple[range, range]:
    return range(0, count, step), range(1, count + 1, step)


def draw_pairs(pairs: Mapping[str, Tensor], out_file: str | Path, title: str) -> None:
    """Draws how often each pair of channels is selected, a panel for each layer.

    Args:
        pairs: Per layer (C, C), in 0..1.
        out_file: Picture to write.
        title: Heading.
    """
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(4 * columns + 1, 4 * rows + 0.6), layout='constrained')
    figure.suptitle(title)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axis in panels.flat[len(pairs) :]:
        axis.axis('off')
    most = max(matrix.max().item() for matrix in pairs.values())
    for axis, (name, matrix) in zip(panels.flat, pairs.items(), strict=False):
        image = axis.imshow(matrix.numpy(), interpolation='nearest', vmin=0, vmax=most)
        axis.set(title=name, xlabel='channel', ylabel='channel')
    figure.colorbar(image, ax=panels, label='share of the images in which both are selected')
    figure.savefig(out_file, dpi=110)


def draw_feature_maps(model: nn.Module, images: Tensor, out_dir: str | Path) -> list[Path]:
    """Draws, for one image, the selected channels and their products in each layer.

    A picture for each layer: the selected channels on the diagonal, in falling order of their
    scores, and at row i, column j the product of channels i and j, before its normalisation.

    Args:
        model: A backbone, in eval mode.
        images: (1, 3, H, W), preprocessed.
        out_dir: Folder to write to.

    Returns:
        The files.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    files = []
    layers = adaptive_layers(model)
    channels: dict[str, Tensor] = {}
    selected: dict[str, Tensor] = {}
    handles = [
        layer.norm.register_forward_hook(
            lambda module, args, output, name=name: channels.update({name: output[0].cpu()})
        )
        for name, layer in layers.items()
    ]

    def note(name: str, scores: Tensor, indices: Tensor) -> None:
        selected[name] = indices[0].cpu()

    try:
        with torch.no_grad(), observe_selections(layers, note):
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    for name, indices in selected.items():
        files.append(out_dir / f'features_{name}.png')
        _draw_mosaic(name, channels[name].float()[indices], indices, files[-1])
    return files


def _draw_mosaic(name: str, channels: Tensor, indices: Tensor, out_file: Path) -> None:
    count, height, width = channels.shape
    # A line of one pixel between the maps.
    canvas = np.full((count * (height + 1) - 1, count * (width + 1) - 1), np.nan)

    def put(row: int, column: int, feature: Tensor) -> None:
        scale = feature.abs().max().clamp(min=1e-12)
        y, x = row * (height + 1), column * (width + 1)
        canvas[y : y + height, x : x + width] = (feature / scale).numpy()

    for i in range(count):
        put(i, i, channels[i])
    pairs = torch.triu_indices(count, count, 1).T.tolist()
    for (i, j), product in zip(pairs, pairwise_products(channels[None])[0], strict=True):
        put(i, j, product)
    side = 3 + 0.3 * count
    figure = Figure(figsize=(side, side), layout='constrained')
    axis = figure.subplots()
    axis.imshow(canvas, cmap='RdBu', vmin=-1, vmax=1, interpolation='nearest', aspect='auto')
    axis.set_title(f'{name}: selected channels (diagonal) and their products, each scaled to ±1')
    axis.set_yticks([(i + 0.5) * (height + 1) for i in range(count)], indices.tolist())
    axis.set_xticks([(i + 0.5) * (width + 1) for i in range(count)], indices.tolist(), rotation=90)
    axis.set(xlabel='channel', ylabel='channel')
    figure.savefig(out_file, dpi=110)
