"""What a config says about its data sets, held against its model."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict

from mmdet_hadaptive.datasets import (
    SHAPE_CLASSES,
    CheckedCocoDataset,
    check_config,
    check_num_classes,
)
from mmdet_hadaptive.utils.configs import coco_datasets

ROOT = Path(__file__).parents[2]
OURS = ROOT / 'configs'


def problems(model, num_classes):
    findings = check_num_classes(ConfigDict(model), num_classes)
    assert all(finding.is_error for finding in findings)
    return [finding.problem.split(' is ')[0].removeprefix('model.') for finding in findings]


def mmdet_model(name):
    from mmengine.hub import get_config

    return get_config(f'mmdet::{name}').model


HEADS = {
    'retinanet/retinanet_r50_fpn_1x_coco.py': ['bbox_head.num_classes'],
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py': ['roi_head.bbox_head.num_classes'],
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py': [
        'roi_head.bbox_head.num_classes',
        'roi_head.mask_head.num_classes',
    ],
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py': [
        *(f'roi_head.bbox_head.{stage}.num_classes' for stage in range(3)),
        'roi_head.mask_head.num_classes',
    ],
    # Its semantic head has 183 classes of its own.
    'htc/htc_r50_fpn_1x_coco.py': [
        f'roi_head.{head}.{stage}.num_classes'
        for head in ('bbox_head', 'mask_head')
        for stage in range(3)
    ],
    'solo/solo_r50_fpn_1x_coco.py': ['mask_head.num_classes'],
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py': [
        'panoptic_head.num_things_classes',
        'panoptic_fusion_head.num_things_classes',
    ],
}


@pytest.mark.parametrize('name', HEADS)
def test_every_head_of_mmdetection_is_checked(name):
    model = mmdet_model(name)
    assert problems(model, 80) == []
    assert sorted(problems(model, 3)) == sorted(HEADS[name])


def test_one_stage_of_a_cascade():
    model = mmdet_model('cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py')
    model.roi_head.bbox_head[1].num_classes = 3
    (finding,) = check_num_classes(model, 80)
    assert finding.describe() == (
        'ERROR: model.roi_head.bbox_head.1.num_classes is 3, the data set has 80 classes. '
        'Set num_classes=80'
    )


@pytest.mark.parametrize(
    'path', sorted(OURS.glob('*/*_coco.py')), ids=lambda path: path.parent.name
)
def test_our_configs(path):
    model = Config.fromfile(path).model
    assert problems(model, 80) == []
    assert problems(model, 3)


@pytest.mark.parametrize('family', ['faster_rcnn', 'mask_rcnn', 'ssdlite'])
def test_a_config_that_keeps_the_number_of_its_base(shapes, monkeypatch, family):
    """The usual mistake: another data set, and num_classes forgotten in one head."""
    monkeypatch.chdir(shapes.parents[1])
    config = Config.fromfile(OURS / 'ssdlite/ssdlite_hadaptive-s_shapes.py')
    config.model = Config.fromfile(next((OURS / family).glob('*hadaptive-s*_coco.py'))).model
    splits = {split: findings for split, _, findings in check_config(config)}
    assert splits.keys() == {'train', 'val'}
    for findings in splits.values():
        assert findings
        assert all('num_classes is 80, the data set has 4' in f.problem for f in findings)


def test_test_data_of_their_own_are_checked(shapes, monkeypatch):
    monkeypatch.chdir(shapes.parents[1])
    config = Config.fromfile(OURS / 'ssdlite/ssdlite_hadaptive-s_shapes.py')
    config.test_dataloader.dataset.ann_file = 'annotations/nowhere.json'
    found = {split: (file.name, findings) for split, file, findings in check_config(config)}
    assert [name for name, _ in found.values()] == [
        'instances_train.json',
        'instances_val.json',
        'nowhere.json',
    ]
    assert found['train'][1] == found['val'][1] == []
    missing, other = found['test'][1]
    assert 'does not exist' in missing.problem
    assert 'test_evaluator.ann_file is ' in other.problem
    # The same annotations with the images elsewhere are another data set.
    config.test_dataloader.dataset.ann_file = config.val_dataloader.dataset.ann_file
    config.test_dataloader.dataset.data_prefix = dict(img='nowhere/')
    found = {split: findings for split, _, findings in check_config(config)}
    assert found['val'] == []
    assert 'shapes/nowhere does not exist' in found['test'][0].problem


def shapes_config():
    return Config.fromfile(OURS / 'ssdlite/ssdlite_hadaptive-s_shapes.py')


def errors(config):
    return {split: [f.problem for f in found] for split, _, found in check_config(config)}


def test_evaluators_compare_with_their_own_images(shapes, monkeypatch):
    monkeypatch.chdir(shapes.parents[1])
    config = shapes_config()
    config.val_evaluator.ann_file = (
        config.train_dataloader.dataset.get('data_root', 'data/shapes/')
        + 'annotations/instances_train.json'
    )
    found = errors(config)
    assert found['train'] == []
    (problem,) = found['val']
    assert problem.startswith('val_evaluator.ann_file is data/shapes/annotations/instances_train')
    assert problem.endswith('those of data/shapes/annotations/instances_val.json')
    # Of the test, whose images are those of the validation and have been checked.
    config = shapes_config()
    config.test_evaluator.ann_file = 'other.json'
    found = errors(config)
    assert found['val'] == []
    assert found['test'][0].startswith('test_evaluator.ann_file is other.json')


def test_the_annotations_of_several_data_sets_may_be_joined(shapes, monkeypatch):
    monkeypatch.chdir(shapes.parents[1])
    config = shapes_config()
    parts = [config[f'{split}_dataloader'].dataset for split in ('val', 'train')]
    parts[1] = coco_datasets(parts[1])[0]
    config.val_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
    config.test_dataloader = config.test_evaluator = None
    config.val_evaluator = [dict(type='CocoMetric', ann_file='joined.json')]
    assert not any(errors(config).values())


def test_classes_that_the_test_forgot_and_a_class_as_type(shapes, monkeypatch):
    monkeypatch.chdir(shapes.parents[1])
    config = shapes_config()
    config.val_dataloader.dataset.type = CheckedCocoDataset
    config.val_dataloader.dataset.metainfo = dict(classes=SHAPE_CLASSES)
    config.test_dataloader.dataset.metainfo = dict(classes=('cat', 'dog'))
    found = errors(config)
    assert found['val'] == []
    assert any("names classes ['cat', 'dog']" in problem for problem in found['test'])


def test_all_splits_have_the_same_classes(shapes, monkeypatch, tmp_path):
    """What the remedy for one file alone would lead to: right names, and wrong numbers."""
    monkeypatch.chdir(shapes.parents[1])
    config = shapes_config()
    coco = json.loads(Path('data/shapes/annotations/instances_val.json').read_text())
    coco['categories'].reverse()
    names = [category['name'] for category in coco['categories']]
    file = tmp_path / 'val.json'
    file.write_text(json.dumps(coco))
    for part in (config.val_dataloader.dataset, config.val_evaluator):
        part.ann_file = str(file)
    config.val_dataloader.dataset.metainfo = dict(classes=names)
    found = errors(config)
    assert found['train'] == []
    (problem,) = found['val']
    assert problem.startswith(f'the classes are {names}, those of data/shapes/annotations')


def test_classes_in_a_file(shapes, monkeypatch, tmp_path):
    monkeypatch.chdir(shapes.parents[1])
    config = shapes_config()
    names = tmp_path / 'classes.txt'
    coco = json.loads(Path('data/shapes/annotations/instances_val.json').read_text())
    names.write_text(''.join(f'{category["name"]}\n' for category in coco['categories']))
    for split in ('train', 'val', 'test'):
        for dataset in coco_datasets(config[f'{split}_dataloader'].dataset):
            dataset.metainfo = dict(classes=str(names))
    assert errors(config) == dict(train=[], val=[])


def test_a_config_without_data_sets_in_this_format(tmp_path, run_warm):
    file = tmp_path / 'config.py'
    file.write_text("train_dataloader = dict(dataset=dict(type='OpenImagesDataset'))\nmodel = {}\n")
    output = run_warm(ROOT / 'tools/check_dataset.py', file, cwd=tmp_path, code=1)
    assert "has no data set in COCO's format: nothing was checked" in output


def test_a_config_that_is_not_there(tmp_path, run_warm):
    output = run_warm(ROOT / 'tools/check_dataset.py', 'no.py', cwd=tmp_path, code=1)
    assert output.splitlines()[-1].startswith('error: ')
    assert "'no.py'" in output.splitlines()[-1]


def test_data_sets_in_other_formats_are_not_said_to_be_wrong(shapes, monkeypatch):
    monkeypatch.chdir(shapes.parents[1])
    config = shapes_config()
    config.val_dataloader.dataset.type = 'VOCDataset'
    config.test_dataloader.dataset.type = 'NoDataset'
    found = {split: findings for split, _, findings in check_config(config)}
    assert found['train'] == []
    (finding,) = found['val']
    assert (finding.is_error, finding.problem) == (False, 'VOCDataset is not checked')
    (finding,) = found['test']
    assert finding.is_error
    assert "'NoDataset' is not registered" in finding.problem


def test_a_config_of_another_format_alone(tmp_path, run_warm):
    file = tmp_path / 'config.py'
    part = "dict(dataset=dict(type='VOCDataset', ann_file='trainval.txt'))"
    file.write_text(f'train_dataloader = {part}\nmodel = {{}}\n')
    output = run_warm(ROOT / 'tools/check_dataset.py', file, cwd=tmp_path, code=1)
    assert 'note: VOCDataset is not checked. Only data sets in COCO' in output
    assert "has no data set in COCO's format: nothing was checked" in output


def test_validation_without_a_box_that_counts(shapes, monkeypatch, tmp_path):
    monkeypatch.chdir(shapes.parents[1])
    config = shapes_config()
    coco = json.loads(Path('data/shapes/annotations/instances_val.json').read_text())
    for item in coco['annotations']:
        item['iscrowd'] = 1
    file = tmp_path / 'val.json'
    file.write_text(json.dumps(coco))
    for part in (config.val_dataloader.dataset, config.val_evaluator):
        part.ann_file = str(file)
    found = errors(config)
    assert found['train'] == []
    (problem,) = found['val']
    assert problem.startswith('none of the ')
    assert 'mAP is -1' in problem


@pytest.mark.parametrize('width', [31, 32])
def test_images_that_are_too_small_to_be_trained_on(shapes, monkeypatch, tmp_path, width):
    monkeypatch.chdir(shapes.parents[1])
    config = shapes_config()
    (dataset,) = coco_datasets(config.train_dataloader.dataset)
    coco = json.loads(Path('data/shapes/annotations/instances_train.json').read_text())
    coco['images'][0]['width'] = width
    dataset.ann_file = str(tmp_path / 'train.json')
    Path(dataset.ann_file).write_text(json.dumps(coco))

    def small():
        found = next(findings for split, _, findings in check_config(config) if split == 'train')
        return [finding for finding in found if 'have a side of less than' in finding.problem]

    assert [finding.places for finding in small()] == (
        [(coco['images'][0]['file_name'],)] if width < 32 else []
    )
    assert not any(finding.is_error for finding in small())
    dataset.filter_cfg.min_size = 1000
    (finding,) = small()
    assert finding.is_error
    assert len(finding.places) == len(coco['images'])


def test_classes_without_a_comma(shapes, monkeypatch):
    monkeypatch.chdir(shapes.parents[1])
    config = shapes_config()
    for dataset in coco_datasets(config.train_dataloader.dataset):
        dataset.metainfo = dict(classes=('disk'))
    (problem,) = errors(config)['train']
    assert "the classes are the text 'disk'" in problem
