"""Trainings to compare on data that ``tools/prepare_dataset.py`` has prepared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config
from scipy.stats import wilcoxon

from mmdet_hadaptive.utils.files import write_whole
from mmdet_hadaptive.utils.metrics import MAP

from ..markdown import markdown_table
from .accuracy import format_spread

_TRAINING = """\
_base_ = {base!r}

# Averages over the same part of the training.
custom_hooks = [
    dict(hook, momentum=hook['momentum'] * {stretch}) if hook['type'] == 'EMAHook' else hook
    for hook in _base_.custom_hooks
]
train_cfg = dict(max_epochs={epochs}, val_interval={epochs})
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end={epochs}, T_max={epochs})

# Colours change as in the trainings on COCO, not as in the template.
train_pipeline = [
    step for step in _base_.train_pipeline if step['type'] != 'YOLOXHSVRandomAug'
]
train_pipeline.insert(
    -1,
    dict(
        type='PhotoMetricDistortion',
        brightness_delta=32,
        contrast_range=(0.5, 1.5),
        saturation_range=(0.5, 1.5),
        hue_delta=18,
    ),
)
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))

# The weights that the template started from when the recipes were compared.
model = dict(backbone=dict({weights}))
optim_wrapper = dict()
"""
_FAST_LAYERS = """\
custom_imports = dict(
    imports=['mmdet_hadaptive', 'mmpretrain.models', 'research.distillation.fast_layers']
)
custom_hooks = [*custom_hooks, dict(type='FastLayersHook')]
"""
_WEIGHTS = "init_cfg=dict(checkpoint='research/weights/small-ir_tiny-imagenet.pth')"
_RATE = 'optim_wrapper.update(optimizer=dict(lr={lr}))\n'
_RATES = 'optim_wrapper.update(paramwise_cfg=dict(custom_keys={keys}))\n'
# Layers near the image change less.
_LAYER_RATE = _RATES.format(
    keys={
        'backbone.stem': dict(lr_mult=0.1),
        'backbone.stage1': dict(lr_mult=0.1),
        'backbone.stage2': dict(lr_mult=0.2),
        'backbone.stage3': dict(lr_mult=0.5),
    }
)
_HSV = """\
train_pipeline[2:4] = [dict(type='YOLOXHSVRandomAug'), train_pipeline[2]]
"""
_LESS_COLOUR = """\
train_pipeline[3] = dict(
    train_pipeline[3],
    brightness_delta=16,
    contrast_range=(0.75, 1.25),
    saturation_range=(0.75, 1.25),
    hue_delta=9,
)
"""
_FASTER_AVERAGE = """\
custom_hooks = [
    dict(hook, momentum=hook['momentum'] * 3) if hook['type'] == 'EMAHook' else hook
    for hook in custom_hooks
]
"""
_AFFINE = """\
train_pipeline.insert(
    2,
    dict(
        type='RandomAffine',
        max_rotate_degree=10.0,
        scaling_ratio_range=(0.8, 1.25),
        max_shear_degree=0.0,
        border_val=(123, 116, 103),
    ),
)
"""
_SCRATCH = """\
model = dict(backbone=dict(init_cfg=None))
"""
_DISTILLED = """\
model = dict(backbone=dict(init_cfg=dict(checkpoint='hadaptive://small-ir_distilled')))
"""
_PUBLISHED = """\
model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint='hadaptive://small_distilled')))
"""
_MEDIUM = """\
model = dict(
    backbone=dict(arch='medium-ir', init_cfg=dict(checkpoint='hadaptive://medium-ir_distilled')),
    neck=dict(in_channels=(128, 192), out_channels=(128, 192, 512, 256, 256, 128)),
    bbox_head=dict(in_channels=(128, 192, 512, 256, 256, 128)),
)
"""
_LITE0 = """\
custom_imports = dict(imports=['mmdet_hadaptive', 'mmpretrain.models'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(mean=[127, 127, 127], std=[128, 128, 128]),
    backbone=dict(
        _delete_=True,
        type='mmpretrain.TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        features_only=True,
        out_indices=(3, 4),
        # python -m research.distillation.teacher writes it.
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/efficientnet-lite0_imagenet.pth'),
    ),
    neck=dict(in_channels=(112, 320), out_channels=(112, 320, 512, 256, 256, 128)),
    bbox_head=dict(in_channels=(112, 320, 512, 256, 256, 128)),
)
optim_wrapper.update(optimizer=dict(lr=1e-3))
"""
_NO_WEIGHTS = "model['backbone'].update(init_cfg=None)\n"
_LITE0_LAYER_RATE = _RATES.format(
    keys={
        f'timm_model.{part}': dict(lr_mult=share)
        for part, share in {
            'conv_stem': 0.1,
            'bn1': 0.1,
            'blocks.0': 0.1,
            'blocks.1': 0.1,
            'blocks.2': 0.2,
            'blocks.3': 0.5,
            'blocks.4': 0.5,
        }.items()
    }
)
# The whole detector of research/everyday, but for its classes.
_EVERYDAY = "load_from = 'work_dirs/everyday/detector.pth'\n"
# What each recipe does otherwise than the first. 'hsv-distilled' is the template's.
RECIPES = {
    'pretrained': '',
    'scratch': _SCRATCH,
    'rate-0.5': _RATE.format(lr=1e-3),
    'rate-2': _RATE.format(lr=4e-3),
    'backbone-rate-0.3': _RATES.format(keys=dict(backbone=dict(lr_mult=0.3))),
    'backbone-rate-0.1': _RATES.format(keys=dict(backbone=dict(lr_mult=0.1))),
    'frozen-stages': f'model = dict(backbone=dict(frozen_stages=1, {_WEIGHTS}))\n',
    'norm-eval': f'model = dict(backbone=dict(norm_eval=True, {_WEIGHTS}))\n',
    'faster-average': _FASTER_AVERAGE,
    'decay-4': 'optim_wrapper.update(optimizer=dict(weight_decay=0.2))\n',
    'expand-4': "train_pipeline[1]['expand_ratio'] = (1, 4)\n",
    'no-colour': 'del train_pipeline[3]\n',
    'hsv': _HSV,
    'hsv-scratch': _HSV + _SCRATCH,
    'hsv-distilled': _HSV + _DISTILLED,
    'hsv-distilled-backbone-rate-0.3': _HSV
    + _DISTILLED
    + _RATES.format(keys=dict(backbone=dict(lr_mult=0.3))),
    'hsv-distilled-backbone-rate-0.1': _HSV
    + _DISTILLED
    + _RATES.format(keys=dict(backbone=dict(lr_mult=0.1))),
    'hsv-distilled-layer-rate': _HSV + _DISTILLED + _LAYER_RATE,
    'hsv-published': _HSV + _PUBLISHED,
    'hsv-medium': _HSV + _MEDIUM,
    'hsv-lite0': _HSV + _LITE0,
    'hsv-lite0-rate-0.5': _HSV + _LITE0 + _RATE.format(lr=5e-4),
    'hsv-lite0-rate-2': _HSV + _LITE0 + _RATE.format(lr=2e-3),
    'hsv-lite0-scratch': _HSV + _LITE0 + _NO_WEIGHTS,
    'hsv-lite0-scratch-rate-2': _HSV + _LITE0 + _NO_WEIGHTS + _RATE.format(lr=2e-3),
    'hsv-lite0-scratch-rate-4': _HSV + _LITE0 + _NO_WEIGHTS + _RATE.format(lr=4e-3),
    'hsv-lite0-layer-rate': _HSV + _LITE0 + _LITE0_LAYER_RATE,
    'hsv-everyday': _HSV + _EVERYDAY,
    'less-colour': _LESS_COLOUR,
    'affine': _AFFINE,
}
_DETECTOR = """\
custom_imports = {imports}
model = dict(
    backbone=dict(_delete_=True, **{backbone}),
    neck=dict(_delete_=True, **{neck}),
    bbox_head=dict(in_channels={in_channels}),
)
optim_wrapper.update(optimizer=dict(lr={learning_rate}))
"""


def write_recipe(
    config: Path, recipe: str, epochs: int, folder: Path, fast_layers: bool = False
) -> Path:
    """Writes a config that trains prepared data by one of several recipes for some epochs.

    The learning rate falls to zero within the epochs, and the averaged weights forget faster in a
    shorter training.

    Args:
        config: A config over ``ssdlite_hadaptive-s-ir_custom.py``, as
            ``tools/prepare_dataset.py`` writes it.
        recipe: One of ``RECIPES``: 'pretrained' is the template's with the changes of colour of the
            COCO recipe and the weights from Tiny ImageNet, the others differ from it in one thing,
            those after 'hsv' from 'hsv'.
        epochs: How long.
        folder: Gets the file, ``<name>_<recipe>-<epochs>e.py``, or ``...e-fast.py``.
        fast_layers: Whether the backbone trains with the layers of
            ``research/distillation/fast_layers.py``.

    Returns:
        The file.

    Raises:
        ValueError: If the config names no weights for the backbone.
    """
    settings = Config.fromfile(config)
    if not settings.model.backbone.get('init_cfg'):
        raise ValueError(f'{config} starts from scratch: give its backbone an init_cfg')
    text = _render_training(config, epochs) + RECIPES[recipe] + _FAST_LAYERS * fast_layers
    file = folder / f'{data_name(config)}_{recipe}-{epochs}e{"-fast" * fast_layers}.py'
    write_whole(text, file)
    return file


def write_detector(
    config: Path, detector: Path, epochs: int, learning_rate: float, folder: Path
) -> Path:
    """Writes a config that trains another SSDLite from scratch.

    Data, anchors and recipe are those of the data's config, but for length, learning rate and the
    changes of colour, which are those of the COCO recipe.

    Args:
        config: The config, as for :func:`write_recipe`.
        detector: The config of an SSDLite, from which the backbone, the neck and the channels of
            the head are taken.
        epochs: How long.
        learning_rate: The highest learning rate.
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
    file = folder / f'{data_name(config)}_{name}-{epochs}e-lr{learning_rate:g}.py'
    write_whole(_render_training(config, epochs) + text, file)
    return file


def data_name(config: Path) -> str:
    """What the name of a prepared config says its data are."""
    return config.stem.removesuffix('_prepared')


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


def draw_lengths(
    scores: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]], out: Path
) -> None:
    """Draws accuracy over the length of the training.

    Args:
        scores: For each data set, for each recipe, for each number of epochs, the mAP of the seeds.
            The mean is drawn, with a line from the smallest to the largest.
        out: The picture, PNG or what its suffix says.
    """
    figure = Figure(figsize=(4 * len(scores), 3.4), layout='constrained')
    panels = figure.subplots(1, len(scores), squeeze=False)[0]
    for axes, (data, by_recipe) in zip(panels, scores.items(), strict=True):
        for recipe, by_length in by_recipe.items():
            lengths, seeds = [*by_length], [*by_length.values()]
            means = np.mean(seeds, axis=1)
            reach = means - np.min(seeds, axis=1), np.max(seeds, axis=1) - means
            axes.errorbar(lengths, means, yerr=reach, marker='o', capsize=3, label=recipe)
        axes.set(title=data, xlabel='epochs', xticks=lengths)
        axes.grid(alpha=0.3)
    panels[0].set(ylabel='mAP')
    panels[0].legend()
    figure.savefig(out, dpi=100)


def _render_training(config: Path, epochs: int) -> str:
    stretch = Config.fromfile(config).train_cfg.max_epochs / epochs
    return _TRAINING.format(
        base=str(config.resolve()), stretch=stretch, epochs=epochs, weights=_WEIGHTS
    )
