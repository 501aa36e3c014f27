"""Trainings from weights and from scratch, of several lengths."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure
from mmengine.config import Config

from ..analysis.metrics import MAP
from ..runtime.files import write_whole

_TEXT = """\
_base_ = {base!r}

# Averages over the same part of the training.
custom_hooks = _base_.custom_hooks
custom_hooks[-1].momentum *= {stretch}
train_cfg = dict(max_epochs={epochs}, val_interval={epochs})
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end={epochs}, T_max={epochs})
"""
_SCRATCH = 'model = dict(backbone=dict(init_cfg=None))\n'


def write_starts(config: Path, epochs: int, folder: Path) -> tuple[Path, Path]:
    """Writes configs that train for some epochs, from scratch and from what a config names.

    They differ in nothing else. The learning rate falls to zero within the epochs, and the
    averaged weights forget faster in a shorter training.

    Args:
        config: A config over ``ssdlite_hadaptive-s-pointwise-pretrained_bccd.py``, as
            ``tools/prepare_dataset.py`` writes it.
        epochs: How long.
        folder: Gets the files, ``<data>_scratch-<epochs>e.py`` and
            ``<data>_pretrained-<epochs>e.py``.

    Returns:
        From scratch, and from weights.

    Raises:
        ValueError: If the config names no weights for the backbone.
    """
    settings = Config.fromfile(config)
    if not settings.model.backbone.get('init_cfg'):
        raise ValueError(f'{config} starts from scratch: give its backbone an init_cfg')
    stretch = settings.train_cfg.max_epochs / epochs
    text = _TEXT.format(base=str(config.resolve()), stretch=stretch, epochs=epochs)
    name = config.stem.removesuffix('_prepared').split('_')[-1]
    files = []
    for start, more in (('scratch', _SCRATCH), ('pretrained', '')):
        files.append(folder / f'{name}_{start}-{epochs}e.py')
        write_whole(text + more, files[-1])
    return tuple(files)


def draw_starts(results: Sequence[Mapping[str, Any]], out_file: str | Path) -> None:
    """Draws mAP over the length of the training, a panel for each data set.

    Args:
        results: Of trainings with configs that :func:`write_starts` wrote, as ``train_all``
            returns them.
        out_file: Picture to write.
    """
    panels: dict[str, dict[str, dict[int, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for result in results:
        name, start, epochs = re.fullmatch(r'(.+)_(\w+)-(\d+)e', result['config']).groups()
        panels[name][start][int(epochs)].append(result[MAP])
    figure = Figure(figsize=(4 * len(panels), 3.2), layout='constrained')
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (name, starts) in zip(axes, panels.items(), strict=True):
        for colour, (start, by_epochs) in zip(('C0', 'C1'), sorted(starts.items()), strict=False):
            epochs = sorted(by_epochs)
            axis.plot(epochs, [mean(by_epochs[count]) for count in epochs], colour, label=start)
            for count in epochs:
                values = by_epochs[count]
                axis.plot([count] * len(values), values, '.', color=colour)
        axis.set(title=name, xlabel='epochs of the training', ylabel='mAP', xticks=epochs)
        axis.legend()
    figure.savefig(out_file, dpi=100)
