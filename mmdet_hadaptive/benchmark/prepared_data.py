"""Trainings to compare on data that ``tools/prepare_dataset.py`` has prepared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from mmengine.config import Config
from scipy.stats import wilcoxon

from ..analysis.markdown import markdown_table
from ..analysis.metrics import MAP
from ..runtime.files import write_whole
from .accuracy import format_spread

_LENGTH = """\
_base_ = {base!r}

# Averages over the same part of the training.
custom_hooks = _base_.custom_hooks
custom_hooks[-1].momentum *= {stretch}
train_cfg = dict(max_epochs={epochs}, val_interval={epochs})
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end={epochs}, T_max={epochs})
"""
_SCRATCH = 'model = dict(backbone=dict(init_cfg=None))\n'
_DETECTOR = """\
custom_imports = {imports}
model = dict(
    backbone=dict(_delete_=True, **{backbone}),
    neck=dict(_delete_=True, **{neck}),
    bbox_head=dict(in_channels={in_channels}),
)
optim_wrapper = dict(optimizer=dict(lr={learning_rate}))
"""


def write_starts(config: Path, epochs: int, folder: Path) -> tuple[Path, Path]:
    """Writes configs that train for some epochs, from scratch and from what a config names.

    They differ in nothing else. The learning rate falls to zero within the epochs, and the
    averaged weights forget faster in a shorter training.

    Args:
        config: A config over ``ssdlite_hadaptive-s-pointwise-pretrained_bccd.py``, as
            ``tools/prepare_dataset.py`` writes it.
        epochs: How long.
        folder: Gets the files, ``<name>_scratch-<epochs>e.py`` and
            ``<name>_pretrained-<epochs>e.py``.

    Returns:
        From scratch, and from weights.

    Raises:
        ValueError: If the config names no weights for the backbone.
    """
    settings = Config.fromfile(config)
    if not settings.model.backbone.get('init_cfg'):
        raise ValueError(f'{config} starts from scratch: give its backbone an init_cfg')
    files = []
    for start, more in (('scratch', _SCRATCH), ('pretrained', '')):
        files.append(folder / f'{_data_name(config)}_{start}-{epochs}e.py')
        write_whole(_render_length(config, epochs) + more, files[-1])
    return tuple(files)


def write_detector(
    config: Path, detector: Path, epochs: int, learning_rate: float, folder: Path
) -> Path:
    """Writes a config that trains another SSDLite from scratch.

    Data, anchors and recipe are those of the data's config, but for length and learning rate.

    Args:
        config: As for :func:`write_starts`.
        detector: The config of an SSDLite, from which the backbone, the neck and the channels of
            the head are taken.
        epochs: How long.
        learning_rate: Of the weights, at its highest.
        folder: Gets the file, ``<name>_<backbone>-<epochs>e-lr<learning rate>.py``.

    Returns:
        The file.
    """
    settings = Config.fromfile(detector)
    model = settings.model.to_dict()
    text = _DETECTOR.format(
        imports=settings.custom_imports.to_dict(),
        backbone=dict(model['backbone'], init_cfg=None),
        neck=model['neck'],
        in_channels=tuple(model['bbox_head']['in_channels']),
        learning_rate=learning_rate,
    )
    name = detector_name(detector)
    file = folder / f'{_data_name(config)}_{name}-{epochs}e-lr{learning_rate:g}.py'
    write_whole(_render_length(config, epochs) + text, file)
    return file


def detector_name(detector: Path) -> str:
    """The backbone that the name of a detector's config tells."""
    return detector.stem.split('_')[1]


def tabulate_detectors(
    results: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]], reference: str
) -> str:
    """Tabulates how several backbones do on several data sets.

    Args:
        results: For each backbone, for each data set, the results of the seeds in their order, as
            :func:`train_all` returns them.
        reference: The backbone that the others are compared with, by data set and seed.

    Returns:
        A Markdown table: per backbone mean and sample standard deviation of mAP over the seeds for
        each data set, the mean over the data sets, its difference to the reference, and the
        probability of pairs at least as unequal if neither were better: two-sided signed-rank test
        of Wilcoxon over data sets and seeds, of one comparison.
    """
    sets = list(results[reference])
    rows = []
    for name, by_set in results.items():
        scores = {data: [result[MAP] for result in by_set[data]] for data in sets}
        differences = [
            score - other[MAP]
            for data in sets
            for score, other in zip(scores[data], results[reference][data], strict=True)
        ]
        compared = ('', '')
        if name != reference:
            compared = (f'{mean(differences):+.3f}', f'{wilcoxon(differences).pvalue:.3f}')
        average = mean(mean(values) for values in scores.values())
        spreads = [format_spread(values) for values in scores.values()]
        rows.append((name, *spreads, f'{average:.3f}', *compared))
    return markdown_table(('backbone', *sets, 'mean mAP', 'difference', 'p'), rows)


def _data_name(config: Path) -> str:
    return config.stem.removesuffix('_prepared')


def _render_length(config: Path, epochs: int) -> str:
    stretch = Config.fromfile(config).train_cfg.max_epochs / epochs
    return _LENGTH.format(base=str(config.resolve()), stretch=stretch, epochs=epochs)
