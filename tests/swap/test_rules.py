import pytest
from mmengine.config import Config

from mmdet_hadaptive.swap import SwapError, apply_edits, load_source, plan_swap, smoke_test


def test_a_stride_that_the_network_lacks_is_named(planned):
    source = 'mmdet::rtmdet/rtmdet_x_p6_4xb8-300e_coco.py'
    with pytest.raises(SwapError, match=r'stride \[64\].*use --arch large'):
        planned(source)
    assert planned(source, 'large')['model.backbone']['out_indices'] == (2, 3, 4, 5)


def test_an_unknown_architecture_is_named(planned, retinanet):
    with pytest.raises(ValueError, match="'huge'"):
        planned(retinanet, 'huge')


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        (dict(type='SyncBN', requires_grad=True), dict(type='SyncBN')),
        (dict(type='BN', eps=1e-3, momentum=0.03), dict(type='BN', eps=1e-3, momentum=0.03)),
        (dict(type='BN', requires_grad=True), None),
        # Frozen with the weights that are gone.
        (dict(type='SyncBN', requires_grad=False), None),
        (dict(type='GN', num_groups=32, requires_grad=True), None),
        (None, None),
    ],
)
def test_batch_normalisation_stays_as_it_was(planned, retinanet, old, new):
    retinanet.model.backbone.norm_cfg = old
    assert planned(retinanet)['model.backbone'].get('norm_cfg') == new


def test_heads_that_read_the_backbone(planned):
    mask2former = planned('mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py')
    assert mask2former['model.panoptic_head.in_channels'] == [32, 64, 96, 128]
    dilated = planned('mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py')
    assert dilated['model.backbone']['out_indices'] == (3,)
    assert dilated['model.rpn_head.in_channels'] == 96
    assert dilated['model.roi_head.bbox_roi_extractor.out_channels'] == 96
    assert dilated['model.roi_head.bbox_head.in_channels'] == 96
    shared = planned('mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py')
    assert shared['model.neck']['in_channels'] == [96]
    assert shared['model.neck']['out_channels'] == 1024


def test_necks_of_other_shapes(planned):
    ssd = planned('mmdet::ssd/ssd300_coco.py')
    assert ssd['model.neck.in_channels'] == [64, 96]
    assert ssd['model.neck.out_channels'] == [64, 96, 512, 256, 256, 256]
    assert ssd['model.bbox_head.in_channels'] == ssd['model.neck.out_channels']
    assert ssd['model.bbox_head.type'] == 'PatchedSSDHead'
    # From the smallest map to the largest.
    yolo = planned('mmdet::yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py')
    assert yolo['model.neck.in_channels'] == [128, 96, 64]


@pytest.mark.parametrize('neck', [None, ()])
def test_stacked_hourglasses_get_a_decoder(planned, neck):
    config = load_source('mmdet::cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py')
    config.model.backbone.stage_channels = [32, 32, 48, 48, 48, 64]
    config.model.backbone.feat_channel = 32
    config.model.neck = neck
    found = planned(config)
    assert found['model.neck']['num_deconv_filters'] == (32, 32, 32)
    # MMEngine merges no dict into None.
    assert found['model.neck']['_delete_'] is True
    assert found['model.bbox_head.num_feat_levels'] == 1
    del config.model['neck']
    assert '_delete_' not in planned(config)['model.neck']
    config.model.bbox_head.pop('num_feat_levels')
    with pytest.raises(SwapError, match='several maps of stride 4'):
        planned(config)


def test_channels_that_are_not_the_backbones_are_named(planned, retinanet):
    retinanet.model.neck.in_channels = [1, 2]
    with pytest.raises(SwapError, match=r'model\.neck\.in_channels=\[1, 2\].*\[64, 128, 256, 512'):
        planned(retinanet)
    retinanet.model.neck = ['FPN']
    with pytest.raises(SwapError, match=r"model\.neck\.0 must be a dict, got 'FPN'"):
        planned(retinanet)
    retinanet.model.neck = None
    with pytest.raises(SwapError, match='there is no neck, and no head'):
        planned(retinanet)


@pytest.mark.parametrize(
    ('source', 'prefix'),
    [
        ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 'model.data_preprocessor'),
        (
            'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py',
            'model.data_preprocessor.data_preprocessor',
        ),
    ],
)
def test_caffe_constants_become_those_of_rgb_images(planned, source, prefix):
    found = planned(f'mmdet::{source}')
    # Of red, green and blue: the preprocessor turns the channels before it normalises them.
    assert found[f'{prefix}.bgr_to_rgb'] is True
    assert found[f'{prefix}.mean'] == [123.675, 116.28, 103.53]
    assert found[f'{prefix}.std'] == [58.395, 57.12, 57.375]


def test_other_constants_stay(planned, retinanet):
    assert not any('preprocessor' in key for key in planned(retinanet))
    retinanet.model.data_preprocessor.std = 1.0
    assert not any('preprocessor' in key for key in planned(retinanet))


def test_what_belongs_to_old_weights_goes(planned):
    caffe = planned('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py')
    assert 'frozen_stages' not in caffe['model.backbone']
    semi = planned(
        'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py'
    )
    assert semi['model.detector.backbone']['type'] == 'HadaptiveNet'
    cityscapes = planned('mmdet::cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py')
    assert cityscapes['load_from'] is None


def test_the_old_detectors_folder_is_left(tmp_path):
    source = tmp_path / 'mine.py'
    source.write_text(
        "_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n"
        "work_dir = 'work_dirs/best'\nresume = True\n"
    )
    config = Config.fromfile(source)
    changed = apply_edits(config, plan_swap(config, 'small'))
    assert changed.work_dir is None
    assert changed.resume is False
    assert config.work_dir == 'work_dirs/best'


@pytest.mark.parametrize('as_list', [False, True])
def test_weights_of_the_whole_model_go(planned, retinanet, as_list):
    old = dict(type='Pretrained', checkpoint='old.pth')
    old = [old] if as_list else old
    other = dict(type='Xavier', layer='Conv2d')
    assert 'model.init_cfg' not in planned(retinanet)
    retinanet.model.init_cfg = old
    assert planned(retinanet)['model.init_cfg'] is None
    retinanet.model.init_cfg = other
    assert 'model.init_cfg' not in planned(retinanet)
    semi = load_source(
        'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py'
    )
    semi.model.init_cfg = semi.model.detector.init_cfg = old
    edits = [edit.path for edit in plan_swap(semi) if edit.path[-1] == 'init_cfg']
    assert edits == [('model', 'init_cfg'), ('model', 'detector', 'init_cfg')]


def test_optimizer_settings_for_layers_that_are_gone(planned):
    swin = planned('mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py')
    keys = swin['optim_wrapper.paramwise_cfg.custom_keys']
    assert keys['_delete_']
    assert 'relative_position_bias_table' not in keys
    # It is also a name in the new backbone.
    assert keys['norm'] == dict(decay_mult=0.0)
    convnext = planned('mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py')
    assert convnext['optim_wrapper.constructor'] == 'DefaultOptimWrapperConstructor'
    assert convnext['optim_wrapper.paramwise_cfg'] is None
    # The old backbone needs mmpretrain; its strides follow from the anchors'.
    assert convnext['model.backbone']['out_indices'] == (1, 2, 3, 4)
    assert convnext['custom_imports']['imports'] == ['mmdet_hadaptive']


def set_keys(config, **keys):
    config.optim_wrapper.paramwise_cfg = dict(
        custom_keys={key.replace('__', '.'): dict(lr_mult=rate) for key, rate in keys.items()}
    )


def test_new_weights_learn_at_the_full_rate(planned, retinanet):
    place = 'optim_wrapper.paramwise_cfg.custom_keys'
    set_keys(retinanet, backbone=0.1, backbone__stage1=0.5, neck=0.1, backbone__stem=2.0)
    found = planned(retinanet)
    assert {key: value for key, value in found.items() if key.startswith(place)} == {
        f'{place}.backbone.lr_mult': 1.0,
        f'{place}.backbone.stage1.lr_mult': 1.0,
    }
    # Also where settings of old layers go, and the others are written anew.
    set_keys(retinanet, backbone=0.1, backbone__layer1=0.1, neck=0.1, backbone__stem=2.0)
    assert planned(retinanet)[place] == {
        '_delete_': True,
        'backbone': dict(lr_mult=1.0),
        'neck': dict(lr_mult=0.1),
        'backbone.stem': dict(lr_mult=2.0),
    }


def test_settings_of_equal_names_elsewhere_stay(planned, retinanet):
    # FPN has lateral_convs; the old backbone has layers, like nothing else here.
    set_keys(retinanet, lateral_convs=0.5, conv1=0.1, layer4=0.1)
    keys = planned(retinanet)['optim_wrapper.paramwise_cfg.custom_keys']
    assert list(keys) == ['_delete_', 'lateral_convs']


def test_names_of_settings_must_be_text(planned, retinanet):
    retinanet.optim_wrapper.paramwise_cfg = dict(custom_keys={5: dict(lr_mult=0.1)})
    with pytest.raises(SwapError, match=r'custom_keys: the keys must be names, got \[5\]'):
        planned(retinanet)


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        (dict(imports=['json'], allow_failed_imports=True), ['json', 'mmdet_hadaptive']),
        (dict(imports='json'), ['json', 'mmdet_hadaptive']),
        (dict(imports=['mmpretrain.models']), ['mmdet_hadaptive']),
        (None, ['mmdet_hadaptive']),
    ],
)
def test_own_imports_stay(planned, retinanet, old, new):
    retinanet.custom_imports = old
    found = planned(retinanet)['custom_imports']
    assert found['imports'] == new
    assert found['allow_failed_imports'] is False
    assert ('_delete_' in found) == (old is None)


def test_own_modules_are_imported_before_the_parts_that_they_register_are_built(
    planned, retinanet, tmp_path, monkeypatch
):
    (tmp_path / 'own_parts.py').write_text(
        'from mmdet.models import ResNet, RetinaHead\n'
        'from mmdet.registry import MODELS\n'
        '@MODELS.register_module()\n'
        'class OwnBackbone(ResNet):\n'
        '    def __init__(self, **options):\n'
        '        super().__init__(18, out_indices=(1, 2, 3), **options)\n'
        '@MODELS.register_module()\n'
        'class OwnHead(RetinaHead):\n'
        '    pass\n'
    )
    (tmp_path / 'broken_parts.py').write_text('1 / 0')
    monkeypatch.syspath_prepend(tmp_path)
    retinanet.custom_imports = dict(imports=['own_parts'])
    retinanet.model.backbone = dict(type='OwnBackbone')
    retinanet.model.neck.in_channels = [128, 256, 512]
    retinanet.model.bbox_head.type = 'OwnHead'
    set_keys(retinanet, layer1=0.1)
    found = planned(retinanet)
    assert found['model.backbone']['out_indices'] == (2, 3, 4)
    assert list(found['optim_wrapper.paramwise_cfg.custom_keys']) == ['_delete_']
    for module, reason in (('no_parts', 'ModuleNotFoundError'), ('broken_parts', 'ZeroDivision')):
        retinanet.custom_imports.imports = [module]
        with pytest.raises(SwapError, match=f'{module} cannot be imported, {reason}.*PYTHONPATH'):
            planned(retinanet)


def test_the_plan_makes_a_detector_that_works_with_weights_given(retinanet):
    retinanet.model.init_cfg = dict(type='Pretrained', checkpoint='old.pth')
    set_keys(retinanet, backbone=0.1)
    config = apply_edits(retinanet, plan_swap(retinanet))
    assert isinstance(config, Config)
    assert config.model.init_cfg is None
    assert smoke_test(config, 64).loss > 0
