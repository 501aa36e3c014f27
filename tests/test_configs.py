import inspect
from pathlib import Path

import pytest
import torch
from mmdet.datasets.transforms import Expand
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_hadaptive.datasets import SHAPE_CLASSES, LoadSSDCrop
from mmdet_hadaptive.models import HadaptiveNet
from mmdet_hadaptive.utils.costs import count_costs

CONFIGS = Path(__file__).parents[1] / 'configs'
# Of detectors.
ALL = sorted(
    path.relative_to(CONFIGS).as_posix()
    for path in CONFIGS.glob('*/*.py')
    if path.parent.name != 'pretrain'
)


def load(name):
    config = Config.fromfile(CONFIGS / name)
    init_default_scope(config.default_scope)
    return config


def coco(dataset):
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def plain(transform):
    """Without where the config system notes that a transform that was read came from."""
    return {key: value for key, value in transform.items() if key != '_scope_'}


def heads(model):
    """The head whose anchors lie on the neck's maps, and the one that tells classes apart."""
    roi_head = getattr(model, 'roi_head', None)
    return (model.rpn_head, roi_head.bbox_head) if roi_head else (model.bbox_head,) * 2


@pytest.mark.parametrize('name', ALL)
def test_either_all_norms_decay_or_none(name):
    options = load(name).optim_wrapper
    detector = nn.ModuleDict(dict(backbone=HadaptiveNet('small')))
    groups = build_optim_wrapper(detector, options).optimizer.param_groups
    decays = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    ach = detector.backbone.stage3[1].expansion
    assert decays[id(ach.product_norm.weight)] == decays[id(ach.norm.weight)]


@pytest.mark.parametrize('name', ALL)
def test_neck_and_head_fit_the_backbone(name):
    config = load(name)
    model = MODELS.build(config.model)
    neck = config.model.neck
    model.backbone.eval()
    with torch.no_grad():
        maps = model.backbone(torch.zeros(1, 3, 128, 128))
    assert tuple(neck.in_channels) == tuple(x.shape[1] for x in maps)
    assert neck.get('start_level', 0) == 0
    generator = getattr(heads(model)[0], 'prior_generator', None)
    if generator is None:
        assert config.model.type == 'DeformableDETR'
        return
    strides = [stride[0] for stride in generator.strides]
    assert strides[: len(maps)] == [128 // x.shape[-1] for x in maps]
    assert strides == sorted(strides)
    if neck.type == 'SSDNeck':
        assert tuple(config.model.bbox_head.in_channels) == tuple(neck.out_channels)


@pytest.mark.parametrize('name', ALL)
def test_data_and_evaluation_belong_together(name):
    config = load(name)
    for split in ('train', 'val', 'test'):
        dataset = coco(config[f'{split}_dataloader'].dataset)
        assert dataset.type == 'CheckedCocoDataset'
        classes = (dataset.get('metainfo') or {}).get('classes')
        assert heads(config.model)[1].num_classes == (len(classes) if classes else 80)
        if split != 'train':
            file = config[f'{split}_evaluator'].ann_file
            assert file == dataset.data_root + dataset.ann_file
    if 'ssdlite' in name or 'retinanet-lite' in name:
        assert config.train_dataloader.drop_last


TAIL = ['NumClassCheckHook', 'StopOnInvalidLossHook', 'EpochSeedHook']


@pytest.mark.parametrize('name', ALL)
def test_all_configs_end_alike(name):
    config = load(name)
    assert config.default_hooks.checkpoint.type == 'AtomicCheckpointHook'
    assert [hook.type for hook in config.custom_hooks if hook.type in TAIL] == TAIL
    # Otherwise EpochSeedHook does not reach the workers.
    assert config.train_dataloader.persistent_workers is False
    assert config.test_dataloader == config.val_dataloader


@pytest.mark.parametrize(
    ('name', 'side', 'parameters', 'macs'),
    [
        ('ssdlite/ssdlite_hadaptive-s_8xb24-600e_coco.py', 320, 1.75e6, 0.30e9),
        ('retinanet/retinanet-lite_hadaptive-s_384_600e_coco.py', 384, 1.5e6, 1.5e9),
    ],
)
def test_light_detectors_are_light(name, side, parameters, macs):
    costs = count_costs(MODELS.build(load(name).model), side, side)
    assert costs.parameters <= parameters
    assert costs.macs <= macs


def test_shapes_config_names_the_drawn_classes():
    config = load('ssdlite/ssdlite_hadaptive-s_shapes.py')
    assert coco(config.val_dataloader.dataset).metainfo.classes == SHAPE_CLASSES


@pytest.mark.parametrize('name', [name for name in ALL if '8xb24' in name])
def test_ssdlite_keeps_the_recipe_of_mmdet(name):
    ours = load(name)
    theirs = Config.fromstring(
        "_base_ = 'mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py'", '.py'
    )
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'auto_scale_lr'):
        assert ours[key] == theirs[key], key
    for key in ('anchor_generator', 'bbox_coder', 'norm_cfg', 'init_cfg'):
        assert ours.model.bbox_head[key] == theirs.model.bbox_head[key], key
    assert ours.model.train_cfg == theirs.model.train_cfg
    assert ours.model.test_cfg == theirs.model.test_cfg
    pipeline = [plain(t) for t in coco(ours.train_dataloader.dataset).pipeline]
    wanted = [plain(t) for t in coco(theirs.train_dataloader.dataset).pipeline]
    # What LoadSSDCrop stands for, with its defaults.
    expand, crop, resize = wanted[2:5]
    replaced = [t.pop('type') for t in (expand, crop, resize)]
    assert replaced == ['Expand', 'MinIoURandomCrop', 'Resize']
    assert pipeline == [
        wanted[1],
        dict(type='LoadSSDCrop', scale=resize['scale'], mean=expand['mean']),
        *wanted[5:],
    ]
    options = inspect.signature(LoadSSDCrop).parameters
    for name, value in (
        ('expand_ratio', expand['ratio_range']),
        ('expand_prob', inspect.signature(Expand).parameters['prob'].default),
        ('min_ious', crop['min_ious']),
        ('min_crop_size', crop['min_crop_size']),
    ):
        assert options[name].default == value


def test_classifiers_are_inherited_by_the_name_of_the_package():
    pytest.importorskip('mmpretrain')
    name = 'mmdet_hadaptive::pretrain/hadaptive-s_8xb128-300e_in1k.py'
    config = Config.fromstring(f'_base_ = {name!r}', '.py')
    init_default_scope(config.default_scope)
    assert type(MODELS.build(config.model).backbone).__name__ == 'HadaptiveNet'
