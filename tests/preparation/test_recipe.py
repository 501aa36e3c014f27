import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from annotated_folders import write_voc
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_hadaptive.preparation import PreparationError, Recipe, prepare_dataset
from mmdet_hadaptive.preparation.timing import measure_iteration

BATCH = 8


@pytest.mark.parametrize('images', [1, 7, 100, 205, 999, 1001, 3000, 20_000, 33_793, 90_000])
def test_the_schedule_follows_the_number_of_images(images):
    schedule = Recipe().schedule(images)
    # Repeats only where images are few.
    assert (schedule.repeats == 1) == (images >= 1000)
    assert schedule.repeats <= max(5, 100 / images + 1)
    assert schedule.repeats * images >= 100
    seen = schedule.iterations * BATCH
    # Of whole epochs.
    assert 0.9 * 14_400 < seen <= 240_000 + images / 2
    if 206 < images < 3400:
        assert seen / images == pytest.approx(70, rel=0.05)
    assert schedule.epoch_length == schedule.repeats * images // BATCH
    # In proportion.
    assert schedule.warm_up / schedule.iterations == pytest.approx(1 / 18, rel=0.02)
    assert 1 / schedule.momentum == pytest.approx(max(500, schedule.iterations / 3.6), rel=0.1)
    assert schedule.epochs < 14 or 7 <= schedule.epochs / schedule.val_interval < 11


def test_the_schedule_that_was_measured():
    schedule = Recipe().schedule(205)
    assert (schedule.repeats, schedule.epochs, schedule.val_interval) == (5, 14, 2)
    assert (schedule.epoch_length, schedule.warm_up) == (128, 100)
    assert (schedule.momentum, schedule.learning_rate) == (0.002, 0.002)


def test_epochs_and_batches_of_ones_own():
    schedule = Recipe(epochs=3, batch_size=32).schedule(2000)
    assert (schedule.epochs, schedule.epoch_length, schedule.val_interval) == (3, 62, 1)
    assert schedule.learning_rate == pytest.approx(0.004)
    # As many images as a batch, or fewer: an epoch repeats them.
    assert Recipe(batch_size=1000).schedule(5).epoch_length == 1


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(arch='tiny'), "arch must be one of small, .*, got 'tiny'"),
        (dict(input_size=330), 'a multiple of 64 and at least 128 .*, got 330'),
        (dict(input_size=64), 'got 64'),
        (dict(input_size=-320), 'got -320'),
        (dict(epochs=0), 'at least 1, got 0'),
        (dict(batch_size=1), r'in 2\.\.1000, got 1'),
        (dict(batch_size=2000), 'got 2000'),
    ],
)
def test_recipes_out_of_their_limits(options, message):
    with pytest.raises(PreparationError, match=message):
        Recipe(**options)


@pytest.mark.parametrize(
    ('arch', 'size'),
    [('small-ir', 320), ('small', 320), ('medium-ir', 384), ('large-ir', 448), ('large', 128)],
)
def test_configs_of_every_network_and_size(tmp_path, arch, size):
    folder = tmp_path / 'pets'
    write_voc(folder)
    recipe = Recipe(arch, size, epochs=3, batch_size=4)
    result = prepare_dataset(folder, tmp_path / 'out', recipe=recipe)
    config = Config.fromfile(result.config)
    assert config.model.backbone.arch == arch
    init_cfg = config.model.backbone.get('init_cfg')
    if not arch.startswith('large'):
        assert init_cfg['checkpoint'] == f'hadaptive://{arch}_distilled'
        assert config.model.backbone.norm_cfg.eps == 1e-5
    else:
        assert init_cfg is None
        assert config.model.backbone.norm_cfg.eps == 1e-3
    assert config.train_cfg.max_epochs == config.param_scheduler[1].T_max == 3
    assert config.train_dataloader.batch_size == 4
    # Two images with boxes.
    assert config.train_dataloader.dataset.times == 50
    init_default_scope('mmdet')
    model = MODELS.build(config.model).eval()
    with torch.no_grad():
        maps = model.extract_feat(torch.rand(1, 3, size, size))
        model.bbox_head(maps)
    generator = model.bbox_head.prior_generator
    for level, stride in zip(maps, generator.strides, strict=True):
        # The anchors lie over the whole input, and not beyond.
        assert 0 <= stride[0] * level.shape[-1] - size < stride[0]
    loaded = [config.train_dataloader.dataset.dataset.pipeline, config.test_dataloader.dataset]
    assert [step.scale for step in loaded[0] if 'scale' in step] == [(size, size)]
    assert [step.scale for step in loaded[1].pipeline if 'scale' in step] == [(size, size)]


def test_the_time_of_an_iteration(tmp_path):
    write_voc(tmp_path / 'pets')
    result = prepare_dataset(tmp_path / 'pets', tmp_path / 'out', recipe=Recipe(input_size=128))
    config = Config.fromfile(result.config)
    # Two images, so that an epoch has one iteration.
    loader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(times=1))
    config.merge_from_dict(dict(train_dataloader=loader))
    assert 0 < measure_iteration(config) < 60
    config.train_dataloader.batch_size = 3
    with pytest.raises(ValueError, match='do not fill a batch of 3: add images or'):
        measure_iteration(config)


@pytest.mark.parametrize('fails', [False, True])
def test_the_commands_that_are_printed_can_be_pasted(
    tmp_path, monkeypatch, pytestconfig, capsys, fails
):
    import runpy

    def measure(config):
        if fails:
            raise RuntimeError('out of memory')
        return 0.5

    folder = tmp_path / 'Hard Hat (1)'
    write_voc(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('mmdet_hadaptive.preparation.timing.measure_iteration', measure)
    arguments = [str(folder), '--epochs', '3', '--size', '128', '--batch-size', '4']
    monkeypatch.setattr(sys, 'argv', ['prepare_dataset.py', *arguments])
    runpy.run_path(str(pytestconfig.rootpath / 'tools/prepare_dataset.py'), run_name='__main__')
    lines = capsys.readouterr().out.splitlines()
    # 3 epochs of 2 images, 50 times.
    time = ', whose time cannot be measured here (RuntimeError: out of memory)'
    time = time if fails else ' of 0.50 s take 1 min here'
    assert any(f'75 iterations{time}' in line for line in lines)
    train, test = (shlex.split(line) for line in lines[-2:])
    assert train == ['python', 'tools/train.py', test[2]]
    assert (tmp_path / train[2]).is_file()
    assert test[3] == 'work_dirs/Hard Hat (1)_prepared/epoch_3.pth'


@pytest.mark.parametrize(
    'base', ['mmdet::atss/atss_r50_fpn_1x_coco.py', 'mmdet::ssd/ssd300_coco.py']
)
def test_the_data_in_another_detector(tmp_path, pytestconfig, base):
    write_voc(tmp_path / 'pets')
    result = prepare_dataset(tmp_path / 'pets', tmp_path / 'out')
    written = Path(result.config).read_text()
    data = written[written.index('data_root') : written.index('# The input')]
    page = (pytestconfig.rootpath / 'docs/own-data.md').read_text()
    (snippet,) = re.findall(r'```python\n(train_dataloader.*?)```', page, re.DOTALL)
    if 'ssd' in base:
        (nested,) = re.findall(r'write\s+`(train_dataloader = .*?)`', page)
        snippet += nested
    config = Config.fromstring(f'_base_ = {base!r}\n{data}{snippet}', '.py')
    init_default_scope('mmdet')
    train = DATASETS.build(dict(config.train_dataloader.dataset))
    tests = DATASETS.build(dict(config.test_dataloader.dataset))
    content = json.loads(Path(config.train_data.ann_file).read_text())
    annotated = {annotation['image_id'] for annotation in content['annotations']}
    assert len(train) == config.train_dataloader.dataset.get('times', 1) * len(annotated)
    assert len(tests) == len(json.loads(Path(config.val_data.ann_file).read_text())['images'])
    for dataset in (train, tests):
        assert dataset.metainfo['classes'] == config.metainfo.classes
        assert len(dataset[0]['data_samples'].gt_instances)
    assert config.val_dataloader == config.test_dataloader
    evaluators = config.val_evaluator, config.test_evaluator
    assert [evaluator.ann_file for evaluator in evaluators] == [config.val_data.ann_file] * 2
