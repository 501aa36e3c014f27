import argparse
import json
import re
import runpy
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

from mmdet_hadaptive.benchmark.accuracy import (
    Run,
    comparison_table,
    data_root_options,
    train_all,
)
from mmdet_hadaptive.pretraining import pretrained_options

ROOT = Path(__file__).parents[2]
SHAPES = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'
OPTIONS = [
    'train_cfg.max_epochs=1',
    'train_dataloader.batch_size=4',
    'train_dataloader.num_workers=0',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
]


def test_trains_evaluates_and_does_not_repeat(shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(shapes.parents[1])
    runs = [Run(SHAPES, 3, tuple(OPTIONS))]
    (result,) = train_all(runs, tmp_path)
    assert (result['config'], result['seed'], result['epochs']) == (SHAPES.stem, 3, 1)
    assert 0 <= result['coco/bbox_mAP'] <= result['coco/bbox_mAP_50'] <= 1
    assert json.loads((tmp_path / 'results.jsonl').read_text()) == result
    work_dir = tmp_path / runs[0].name
    log = (work_dir / 'train.log').read_text()
    assert re.search(r'seed: 3\b', log)

    assert train_all(runs, tmp_path) == [result]
    assert (work_dir / 'train.log').read_text() == log
    with pytest.raises(ValueError, match=r'trained with the options .*choose another folder'):
        train_all([Run(SHAPES, 3, tuple(OPTIONS[1:]))], tmp_path)

    # Without its result, a finished training is evaluated again and not trained again.
    (tmp_path / 'results.jsonl').unlink()
    assert train_all(runs, tmp_path) == [result]
    again = (work_dir / 'train.log').read_text()[len(log) :]
    assert 'resumed epoch: 1' in again
    assert 'Epoch(train)' not in again


def test_a_failed_training_names_its_log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        RuntimeError, match=r'ended with status 1, see .*train\.log: .*check_dataset'
    ):
        train_all([Run(SHAPES, 0)], tmp_path)
    assert not (tmp_path / 'results.jsonl').exists()


def test_table():
    values = {('a', 0): 0.5, ('a', 1): 0.6, ('b', 0): 0.53, ('b', 1): 0.61, ('c', 1): 0.4}
    results = [
        {'config': config, 'seed': seed, 'coco/bbox_mAP': v, 'coco/bbox_mAP_50': v + 0.1}
        for (config, seed), v in values.items()
    ]
    rows = comparison_table(results, 'a').splitlines()[2:]
    assert rows == [
        '| a | 2 | 0.550 ± 0.071 | 0.650 ± 0.071 |  |',
        '| b | 2 | 0.570 ± 0.057 | 0.670 ± 0.057 | +0.020 ± 0.014 |',
        '| c | 1 | 0.400 | 0.500 | -0.200 |',
    ]


def overridden(path, options):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    config = Config.fromfile(path)
    config.merge_from_dict(parser.parse_args(['--cfg-options', *options]).cfg_options)
    return config


@pytest.mark.parametrize('name', ['ssdlite/ssdlite_hadaptive-s', 'baselines/ssdlite_mobilenetv2'])
def test_data_elsewhere(name):
    path = ROOT / f'configs/{name}_8xb24-600e_coco.py'
    config = overridden(path, data_root_options(path, '/elsewhere'))
    assert 'data/coco' not in config.pretty_text
    assert config.val_evaluator.ann_file == '/elsewhere/annotations/instances_val2017.json'
    assert config.train_dataloader.dataset.dataset.data_root == '/elsewhere'
    unchanged = Config.fromfile(path)
    assert config.model == unchanged.model
    assert config.train_dataloader.dataset.dataset.ann_file == (
        unchanged.train_dataloader.dataset.dataset.ann_file
    )


@pytest.mark.parametrize('name', ['ssdlite/ssdlite_hadaptive-s', 'baselines/ssdlite_mobilenetv2'])
def test_start_from_a_pretrained_backbone(name, tmp_path):
    path = ROOT / f'configs/{name}_8xb24-600e_coco.py'
    config = Config.fromfile(path)
    init_default_scope('mmdet')
    source = MODELS.build(config.model)
    checkpoint = tmp_path / 'classifier.pth'
    torch.save({'state_dict': source.state_dict()}, checkpoint)
    started = MODELS.build(overridden(path, pretrained_options(config, checkpoint)).model)
    started.init_weights()
    for key, value in source.backbone.state_dict().items():
        assert torch.equal(started.backbone.state_dict()[key], value), key


def test_backbones_of_timm_load_its_weights():
    path = ROOT / 'configs/baselines/ssdlite_starnet-s1_8xb24-600e_coco.py'
    options = pretrained_options(Config.fromfile(path), 'unused.pth')
    assert overridden(path, options).model.backbone.pretrained is True


def test_suites_name_configs_that_exist():
    suites = runpy.run_path(str(ROOT / 'tools/development/run_benchmark.py'))['SUITES']
    for names, seeds in suites.values():
        assert seeds
        assert len(set(names)) == len(names)
        for name in names:
            assert (ROOT / 'configs' / name).is_file(), name
