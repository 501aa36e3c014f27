import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_hadaptive.utils.metrics import MAP, MAP_50
from research.benchmark import accuracy
from research.benchmark.prepared_data import (
    RECIPES,
    detector_name,
    tabulate_detectors,
    write_detector,
    write_recipe,
)

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / 'configs/ssdlite'
PRETRAINED = CONFIGS / 'ssdlite_hadaptive-s-ir_custom.py'
DETECTORS = (
    'configs/ssdlite/ssdlite_hadaptive-s-ir_8xb24-600e_coco.py',
    'configs/ssdlite/ssdlite_hadaptive-s_8xb24-600e_coco.py',
    'research/configs/baselines/ssdlite_mobilenetv3-large_8xb24-600e_coco.py',
    'research/configs/baselines/ssdlite_ghostnet_8xb24-600e_coco.py',
)


@pytest.mark.parametrize('recipe', RECIPES)
def test_a_recipe_differs_in_what_it_names(tmp_path, recipe):
    first = 'hsv' if recipe.startswith('hsv-') else 'pretrained'
    first = next((r for r in ('hsv-distilled', 'hsv-lite0') if recipe.startswith(f'{r}-')), first)
    template = Config.fromfile(write_recipe(PRETRAINED, first, 7, tmp_path)).to_dict()
    other = Config.fromfile(write_recipe(PRETRAINED, recipe, 7, tmp_path)).to_dict()
    settings = {
        'scratch': 'model',
        'hsv-scratch': 'model',
        'hsv-distilled': 'model',
        'hsv-published': 'model',
        'hsv-medium': 'model',
        'hsv-everyday': 'load_from',
        'hsv-lite0': ('model', 'custom_imports', 'optim_wrapper'),
        'hsv-lite0-scratch': 'model',
        'hsv-lite0-scratch-rate-2': ('model', 'optim_wrapper'),
        'hsv-lite0-scratch-rate-4': ('model', 'optim_wrapper'),
        'frozen-stages': 'model',
        'norm-eval': 'model',
        'faster-average': 'custom_hooks',
        'expand-4': 'train_pipeline',
        'no-colour': 'train_pipeline',
        'less-colour': 'train_pipeline',
        'hsv': 'train_pipeline',
        'affine': 'train_pipeline',
    }
    named = settings.get(recipe, 'optim_wrapper')
    expected = {named} if isinstance(named, str) else set(named)
    expected = expected if recipe != 'pretrained' else set()
    if 'train_pipeline' in expected:
        assert (
            other['train_dataloader']['dataset']['dataset'].pop('pipeline')
            == (other['train_pipeline'])
        )
        del template['train_dataloader']['dataset']['dataset']['pipeline']
    assert {key for key in template | other if template.get(key) != other.get(key)} == expected
    init_default_scope('mmdet')
    MODELS.build(other['model'])
    pipeline = [step['type'] for step in other['train_pipeline']]
    assert (pipeline[2] == 'RandomAffine') == (recipe == 'affine')
    hsv = recipe.startswith('hsv')
    assert ('PhotoMetricDistortion' in pipeline) == (recipe != 'no-colour' and not hsv)
    assert ('YOLOXHSVRandomAug' in pipeline) == hsv


def test_fast_layers_change_nothing_else(tmp_path):
    files = [write_recipe(PRETRAINED, 'hsv-lite0', 7, tmp_path, fast) for fast in (False, True)]
    plain, fast = (Config.fromfile(file).to_dict() for file in files)
    assert files[1].stem == f'{files[0].stem}-fast'
    assert fast['custom_hooks'] == [*plain['custom_hooks'], dict(type='FastLayersHook')]
    assert set(plain['custom_imports']['imports']) < set(fast['custom_imports']['imports'])
    changed = {key for key in plain | fast if plain.get(key) != fast.get(key)}
    assert changed == {'custom_hooks', 'custom_imports'}


def test_the_template_is_one_of_the_recipes(tmp_path):
    recipe = Config.fromfile(write_recipe(PRETRAINED, 'hsv-distilled', 7, tmp_path))
    assert recipe.train_pipeline == Config.fromfile(PRETRAINED).train_pipeline
    assert recipe.model == Config.fromfile(PRETRAINED).model
    assert recipe.train_dataloader.dataset.dataset.pipeline == recipe.train_pipeline
    assert 'YOLOXHSVRandomAug' in [step['type'] for step in recipe.train_pipeline]


def test_scratch_has_no_weights(tmp_path):
    file = write_recipe(PRETRAINED, 'scratch', 7, tmp_path)
    assert Config.fromfile(file).model.backbone.init_cfg is None


def test_the_length_of_a_training(tmp_path):
    short, long = (
        Config.fromfile(write_recipe(PRETRAINED, 'pretrained', epochs, tmp_path))
        for epochs in (7, 14)
    )
    schedule = short.param_scheduler[1]
    assert short.train_cfg.max_epochs == schedule.end == schedule.T_max == 7
    # Half of the training: each update of the averaged weights counts twice.
    (ratio,) = (
        a.momentum / b.momentum
        for a, b in zip(short.custom_hooks, long.custom_hooks, strict=True)
        if a.type == 'EMAHook'
    )
    assert ratio == pytest.approx(2)


def test_a_config_from_scratch_is_refused(tmp_path):
    with pytest.raises(ValueError, match='starts from scratch: give its backbone an init_cfg'):
        write_recipe(CONFIGS / 'ssdlite_hadaptive-s-ir_bccd.py', 'scratch', 7, tmp_path)


@pytest.mark.parametrize('name', DETECTORS)
def test_another_detector_by_the_same_recipe(tmp_path, name):
    detector = ROOT / name
    file = write_detector(PRETRAINED, detector, 7, 4e-3, tmp_path)
    assert file.name == f'{PRETRAINED.stem}_{detector_name(detector)}-7e-lr0.004.py'
    trained, other = Config.fromfile(file), Config.fromfile(detector)
    scratch = Config.fromfile(write_recipe(PRETRAINED, 'scratch', 7, tmp_path))
    assert trained.optim_wrapper.optimizer.lr == 4e-3
    for key, values in scratch.to_dict().items():
        if key not in ('model', 'optim_wrapper', 'custom_imports'):
            assert trained[key] == values, key

    model, head = other.model.to_dict(), scratch.model.bbox_head.to_dict()
    model['backbone']['init_cfg'] = None
    model['bbox_head'] = head | dict(in_channels=tuple(model['bbox_head']['in_channels']))
    model['test_cfg'] = scratch.model.test_cfg.to_dict()
    assert trained.model.to_dict() == model
    init_default_scope('mmdet')
    MODELS.build(trained.model)


def test_the_paired_test_sees_what_is_consistent():
    def results(offset):
        return {
            data: [{MAP: level + 0.01 * seed + offset(seed)} for seed in range(3)]
            for data, level in (('fruit', 0.4), ('cards', 0.5), ('cells', 0.6))
        }

    table = tabulate_detectors(
        {
            'ours': results(lambda seed: 0),
            'worse': results(lambda seed: -0.02 - 0.001 * seed),
            'level': results(lambda seed: 0.02 * (seed - 1) + 0.001),
        },
        'ours',
    )
    header, _, ours, worse, level = (line.strip('| ').split(' | ') for line in table.splitlines())
    assert header == ['backbone', 'fruit', 'cards', 'cells', 'mean mAP', 'difference', 'p']
    assert ours[:5] == ['ours', '0.410 ± 0.010', '0.510 ± 0.010', '0.610 ± 0.010', '0.510']
    assert worse[4:6] == ['0.489', '-0.021']
    # All nine pairs to one side: 2 / 2^9.
    assert float(worse[6]) == pytest.approx(2 / 2**9, abs=5e-4)
    assert level[5] == '+0.001'
    assert float(level[6]) > 0.3


def test_each_backbone_has_the_learning_rate_that_is_best_for_it(monkeypatch, tmp_path, capsys):
    """The second is best with the lowest, the first with the highest."""
    trained = []

    def train(runs, folder, jobs):
        trained.extend((run.config.stem, run.seed) for run in runs)
        rates = [float(run.config.stem.rpartition('-lr')[2]) for run in runs]
        return [
            {MAP: 0.5 - rate if 'ghostnet' in run.config.stem else 0.4 + rate}
            for run, rate in zip(runs, rates, strict=True)
        ]

    monkeypatch.setattr(accuracy, 'train_all', train)
    data = [tmp_path / f'{name}_prepared.py' for name in ('fruit', 'cards')]
    for file in data:
        file.write_text(f"_base_ = '{PRETRAINED}'\n")
    detectors = [ROOT / name for name in (DETECTORS[0], DETECTORS[3])]
    words = ['compare_backbones.py', *data, '--detectors', *detectors, '--epochs', 2]
    words += ['--seeds', 3, 4, '--learning-rates', 0.001, 0.002, '--work-dir', tmp_path / 'work']
    words += ['--picture', tmp_path / 'picture.png']
    monkeypatch.setattr(sys, 'argv', list(map(str, words)))
    runpy.run_module('research.tools.compare_backbones', run_name='__main__')
    assert trained[:4] == [
        (f'fruit_{name}-2e-lr{rate}', 3)
        for name in ('hadaptive-s-ir', 'ghostnet')
        for rate in ('0.001', '0.002')
    ]
    assert trained[4:] == [
        (f'{x}_{name}', seed)
        for seed in (3, 4)
        for x in ('fruit', 'cards')
        for name in ('hadaptive-s-ir-2e-lr0.002', 'ghostnet-2e-lr0.001')
    ]
    tried, compared = capsys.readouterr().out.split('\n\n')
    assert '| ghostnet | 0.499 | 0.498 |' in tried
    assert '| ghostnet | 0.499 ± 0.000 | 0.499 ± 0.000 | 0.499 | +0.097 |' in compared
    assert (tmp_path / 'picture.png').stat().st_size > 1000


def test_recipes_are_compared_and_drawn_by_length(monkeypatch, tmp_path, capsys):
    """From the weights 0.2 ahead after two epochs and 0.1 after four; the second seed adds 0.02."""
    drawn = []

    def train(runs, folder, jobs):
        return [
            dict(config=run.config.stem, seed=run.seed)
            | {MAP: score(run.config.stem) + 0.02 * run.seed, MAP_50: 0.5}
            for run in runs
        ]

    def score(config):
        data, recipe, length = re.fullmatch('(.+)_(.+)-(.)e', config).groups()
        gain = {'scratch': 0, 'pretrained': 0.4 / int(length)}[recipe]
        return {'fruit': 0.1, 'cards': 0.3}[data] + gain

    def errorbar(axes, lengths, means, yerr, **options):
        drawn.append((axes, options['label'], lengths, means, yerr))

    monkeypatch.setattr(accuracy, 'train_all', train)
    monkeypatch.setattr(Axes, 'errorbar', errorbar)
    monkeypatch.setattr(Axes, 'legend', lambda axes: None)
    data = [tmp_path / f'{name}_prepared.py' for name in ('fruit', 'cards')]
    for file in data:
        file.write_text(f"_base_ = '{PRETRAINED}'\n")
    words = ['compare_recipes.py', *data, '--epochs', 4, 2, '--seeds', 0, 1]
    words += ['--work-dir', tmp_path / 'work', '--picture', tmp_path / 'picture.png']
    monkeypatch.setattr(sys, 'argv', list(map(str, words)))
    runpy.run_module('research.tools.compare_recipes', run_name='__main__')
    fruit, cards, _ = capsys.readouterr().out.split('\n\n')
    assert '| fruit_pretrained-2e | 2 | 0.310 ± 0.014 | 0.500 ± 0.000 | +0.200 ± 0.000 |' in fruit
    assert '| cards_pretrained-4e | 2 | 0.410 ± 0.014 | 0.500 ± 0.000 | +0.100 ± 0.000 |' in cards
    expected = {
        ('fruit', 'scratch'): (0.11, 0.11),
        ('fruit', 'pretrained'): (0.31, 0.21),
        ('cards', 'scratch'): (0.31, 0.31),
        ('cards', 'pretrained'): (0.51, 0.41),
    }
    assert [(axes.get_title(), label) for axes, label, *_ in drawn] == [*expected]
    for (_, _, lengths, means, reach), values in zip(drawn, expected.values(), strict=True):
        assert lengths == [2, 4]
        assert means == pytest.approx(values)
        assert np.allclose(reach, 0.01)
    assert (tmp_path / 'picture.png').stat().st_size > 1000
