import pytest
import torch
from mmdet.models import ReIDDataPreprocessor
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_hadaptive.swap import SwapError, load_source
from mmdet_hadaptive.swap.detector import Level, examine_backbone, find_detector


@MODELS.register_module(force=True)
class StrangeBackbone(nn.Module):
    """Gives what it is told to."""

    def __init__(self, kind, shapes=()):
        super().__init__()
        self.kind, self.shapes = kind, shapes

    def forward(self, x):
        maps = [x.new_zeros(1, channels, side, side) for channels, side in self.shapes]
        return dict(
            maps=tuple(maps),
            tensor=x,
            tokens=(x.flatten(2),),
            none=None,
            dict=dict(x=x),
        )[self.kind]


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


def examine(config):
    return examine_backbone(config.model, 'model')


def test_the_detector_is_found_within_another_model(retinanet):
    assert find_detector(retinanet) == ('model',)
    semi = 'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py'
    assert find_detector(load_source(semi)) == ('model', 'detector')


@pytest.mark.parametrize(
    ('key', 'value', 'reason'),
    [
        ('model', 5, r'^model must be of type dict, got 5$'),
        ('model.detector', [1], r'^model\.detector must be of type dict, got \[1\]$'),
        ('model.neck', 'FPN', r"^model\.neck must be of type dict, list, tuple, None, got 'FPN'$"),
        ('model.bbox_head', 3, r'^model\.bbox_head must be'),
        ('model.roi_head', [1], r'^model\.roi_head must be'),
        ('model.backbone', None, r'^model\.backbone: RetinaNet has no backbone$'),
        ('model.backbone.norm_cfg', 'BN', r'^model\.backbone\.norm_cfg must be'),
        ('custom_imports', ['mine'], r'^custom_imports must be'),
        ('custom_imports', dict(imports=[3]), r'^custom_imports\.imports\.0 must be of type str'),
        ('optim_wrapper', 'SGD', r'^optim_wrapper must be'),
        ('optim_wrapper.constructor', {}, r'^optim_wrapper\.constructor must be'),
        (
            'optim_wrapper.paramwise_cfg',
            dict(custom_keys=dict(backbone=0.1)),
            r'^optim_wrapper\.paramwise_cfg\.custom_keys\.backbone must be of type dict, got 0\.1$',
        ),
        (
            'optim_wrapper.paramwise_cfg',
            dict(custom_keys=dict(backbone=dict(lr_mult='0.1'))),
            r'lr_mult must be of type Real',
        ),
    ],
)
def test_wrong_types_are_named(retinanet, key, value, reason):
    *parents, last = key.split('.')
    node = retinanet
    for parent in parents:
        node = node[parent]
    node[last] = value
    with pytest.raises(SwapError, match=reason):
        find_detector(retinanet)


@pytest.mark.parametrize('channels', [1, 4, None])
def test_images_that_do_not_have_three_channels_are_refused(retinanet, channels):
    retinanet.model.backbone.in_channels = 3
    assert find_detector(retinanet) == ('model',)
    retinanet.model.backbone.in_channels = channels
    with pytest.raises(SwapError, match=rf'^model\.backbone\.in_channels={channels}: .*3 channels'):
        find_detector(retinanet)


@pytest.mark.parametrize(
    ('key', 'value', 'reason'),
    [
        ('tracker', dict(type='SORTTracker'), 'a tracker on videos'),
        ('data_preprocessor', dict(type='TrackDataPreprocessor'), 'a tracker on videos'),
        ('data_preprocessor', dict(type='ReIDDataPreprocessor'), 'it recognises persons'),
        ('data_preprocessor', dict(type=ReIDDataPreprocessor), 'it recognises persons'),
        ('language_model', dict(type='BertModel'), r'model\.language_model: RetinaNet reads texts'),
    ],
)
def test_models_that_are_no_detectors_of_images_are_refused(retinanet, key, value, reason):
    retinanet.model[key] = value
    with pytest.raises(SwapError, match=reason):
        find_detector(retinanet)


def test_the_old_backbone_shows_its_levels(retinanet):
    levels, names = examine(retinanet)
    assert levels == [Level(64, 4), Level(128, 8), Level(256, 16), Level(512, 32)]
    assert 'backbone.layer1.0.conv1.weight' in names


@pytest.mark.parametrize(
    ('kind', 'what'),
    [
        ('maps', r'a tuple of \[\]'),
        ('tensor', r'a tensor of shape \(1, 3, 128, 128\)'),
        ('tokens', r'a tuple of \[a tensor of shape \(1, 3, 16384\)\]'),
        ('none', 'a NoneType'),
        ('dict', 'a dict'),
    ],
)
def test_outputs_that_are_no_maps_are_named(retinanet, kind, what):
    retinanet.model.backbone = dict(type='StrangeBackbone', kind=kind)
    with pytest.raises(SwapError, match=f'type=StrangeBackbone: it gives {what}; a detector'):
        examine(retinanet)


@pytest.mark.parametrize('sides', [(4, 8, 16), (16, 16, 8)])
def test_strides_out_of_order_are_named(retinanet, sides):
    shapes = [(8, side) for side in sides]
    retinanet.model.backbone = dict(type='StrangeBackbone', kind='maps', shapes=shapes)
    with pytest.raises(SwapError, match='in rising order'):
        examine(retinanet)
    shapes = [(8, 16), (16, 8)]
    retinanet.model.backbone = dict(type='StrangeBackbone', kind='maps', shapes=shapes)
    assert examine(retinanet)[0] == [Level(8, 8), Level(16, 16)]


def test_of_a_backbone_that_is_missing_the_neck_tells(retinanet):
    retinanet.model.backbone = dict(type='NotHere')
    # RetinaNet's anchors start at stride 8, its neck at the second of the maps.
    assert retinanet.model.neck.start_level == 1
    levels, names = examine(retinanet)
    assert levels == [Level(64, 4), Level(128, 8), Level(256, 16), Level(512, 32)]
    assert names == []
    for key, value in (('in_channels', [64, None]), ('start_level', -1), ('start_level', '1')):
        broken = Config(dict(model=retinanet.model.to_dict()))
        broken.model.neck[key] = value
        with pytest.raises(SwapError, match=r'type=NotHere: it cannot be built here .KeyError'):
            examine(broken)


def test_a_backbone_without_names_in_the_registry_stays_out(retinanet):
    retinanet.model.backbone.type = 'StrangeBackbone'
    # It takes no argument 'depth'.
    assert examine(retinanet)[1] == []
    assert torch.is_grad_enabled()
