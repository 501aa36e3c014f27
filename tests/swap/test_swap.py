import pytest
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_hadaptive.swap.swap import (
    Edit,
    SwapError,
    load_source,
    plan_swap,
    prove,
    render_config,
    swap_backbone,
)


def planned(source, arch='small'):
    return {'.'.join(map(str, e.path)): e.value for e in plan_swap(load_source(source), arch)}


@pytest.mark.parametrize(
    ('source', 'size'),
    [
        ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 128),
        ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 128),
        ('cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py', 128),
        ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 128),
        ('atss/atss_r50_fpn_1x_coco.py', 128),
        ('gfl/gfl_r50_fpn_1x_coco.py', 128),
        ('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 128),
        ('yolox/yolox_tiny_8xb8-300e_coco.py', 128),
        ('deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', 128),
        # It picks 900 of its positions.
        ('dino/dino-4scale_r50_8xb2-12e_coco.py', 256),
    ],
)
def test_detectors_of_all_kinds_work(source, size, tmp_path):
    out = tmp_path / 'swapped.py'
    before, proof = swap_backbone(f'mmdet::{source}', out, 'small', size)
    config = Config.fromfile(out)
    assert config.model.backbone.type == 'HadaptiveNet'
    assert proof.costs.backbone_parameters < 0.7e6
    assert proof.costs.parameters < before.parameters
    assert proof.costs.backbone_macs < before.backbone_macs
    # In two-stage detectors the head's depend on how many proposals the weights make.
    if 'rpn_head' not in config.model:
        assert proof.costs.macs < before.macs
    # What does not depend on the backbone stays the source's.
    theirs = load_source(f'mmdet::{source}')
    assert config.train_dataloader == theirs.train_dataloader
    assert len(out.read_text().splitlines()) < 50


@pytest.mark.parametrize(
    ('source', 'reason'),
    [
        ('qdtrack/qdtrack_faster-rcnn_r50_fpn_4e_base.py', 'model.type=QDTrack: a tracker'),
        ('tridentnet/tridentnet_r50-caffe_1x_coco.py', r'model\.backbone\.num_branch'),
        ('grounding_dino/grounding_dino_r50_scratch_8xb2_1x_coco.py', r'model\.language_model'),
        ('detectors/cascade-rcnn_r50-rfp_1x_coco.py', r'model\.neck\.rfp_backbone'),
        ('misc/d2_faster-rcnn_r50-caffe_fpn_ms-90k_coco.py', r'model\.detector\.backbone\.type'),
        ('rtmdet/rtmdet_tta.py', 'model: the config describes none'),
        ('faster_rcnn/nothing.py', 'nothing.py'),
    ],
)
def test_what_cannot_be_exchanged_is_named_and_nothing_written(source, reason, tmp_path):
    with pytest.raises(SwapError, match=reason):
        swap_backbone(f'mmdet::{source}', tmp_path / 'swapped.py')
    assert list(tmp_path.iterdir()) == []


def test_a_detector_that_fails_is_not_written(tmp_path):
    source = tmp_path / 'wrong.py'
    # The neck fits the backbone, and the head does not fit the neck.
    source.write_text(
        "_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'\n"
        'model = dict(neck=dict(out_channels=64))\n'
    )
    with pytest.raises(RuntimeError, match='to have 256 channels'):
        swap_backbone(str(source), tmp_path / 'swapped.py', size=64)
    assert list(tmp_path.iterdir()) == [source]


def test_a_stride_that_the_network_lacks_is_named():
    source = 'mmdet::rtmdet/rtmdet_x_p6_4xb8-300e_coco.py'
    with pytest.raises(SwapError, match=r'stride \[64\].*use --arch large'):
        planned(source)
    assert planned(source, 'large')['model.backbone']['out_indices'] == (2, 3, 4, 5)


def test_a_file_is_inherited_by_its_relative_path(tmp_path):
    source = tmp_path / 'configs' / 'mine.py'
    source.parent.mkdir()
    source.write_text("_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'\n")
    out = tmp_path / 'swapped' / 'mine.py'
    with pytest.raises(ValueError, match='make it first'):
        swap_backbone(str(source), out, size=64)
    out.parent.mkdir()
    swap_backbone(str(source), out, size=64)
    assert Config.fromfile(out)._cfg_dict.model.backbone.type == 'HadaptiveNet'
    assert "_base_ = '../configs/mine.py'" in out.read_text()


def test_heads_that_read_the_backbone():
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


def test_necks_of_other_shapes():
    ssd = planned('mmdet::ssd/ssd300_coco.py')
    assert ssd['model.neck.in_channels'] == [64, 96]
    assert ssd['model.neck.out_channels'] == [64, 96, 512, 256, 256, 256]
    assert ssd['model.bbox_head.in_channels'] == ssd['model.neck.out_channels']
    assert ssd['model.bbox_head.type'] == 'SSDLiteHead'
    # From the smallest map to the largest.
    yolo = planned('mmdet::yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py')
    assert yolo['model.neck.in_channels'] == [128, 96, 64]


def test_of_a_list_of_necks_the_others_stay():
    source = 'mmdet::dyhead/atss_r50_fpn_dyhead_1x_coco.py'
    config = Config.fromstring(render_config(source, plan_swap(load_source(source))), '.py')
    fpn, dyhead = config.model.neck
    assert fpn.in_channels == [32, 64, 96, 128]
    assert dyhead == load_source(source).model.neck[1]


def test_what_belongs_to_old_weights_goes():
    caffe = planned('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py')
    assert caffe['model.data_preprocessor.std'] == [58.395, 57.12, 57.375]
    assert caffe['model.data_preprocessor.bgr_to_rgb'] is True
    assert 'frozen_stages' not in caffe['model.backbone']
    semi = planned(
        'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py'
    )
    assert semi['model.detector.backbone']['type'] == 'HadaptiveNet'
    assert semi['model.data_preprocessor.data_preprocessor.std'] == [58.395, 57.12, 57.375]
    cityscapes = planned('mmdet::cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py')
    assert cityscapes['load_from'] is None
    detr = planned('mmdet::detr/detr_r50_8xb2-150e_coco.py')
    assert detr['optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult'] == 1.0


def test_optimizer_settings_for_layers_that_are_gone():
    swin = planned('mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py')
    keys = swin['optim_wrapper.paramwise_cfg.custom_keys']
    assert keys['_delete_']
    assert 'relative_position_bias_table' not in keys
    # It is also a name in the new backbone.
    assert keys['norm'] == dict(decay_mult=0.0)
    source = 'mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py'
    convnext = planned(source)
    assert convnext['optim_wrapper.constructor'] == 'DefaultOptimWrapperConstructor'
    # The old backbone needs mmpretrain; its strides follow from the anchors'.
    assert convnext['model.backbone']['out_indices'] == (1, 2, 3, 4)
    assert convnext['custom_imports']['imports'] == ['mmdet_hadaptive']


def test_a_proof_needs_gradients_in_the_backbone():
    source = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
    config = load_source(source)
    edits = plan_swap(config)
    for edit in edits[1:]:
        node = config
        for key in edit.path[:-1]:
            node = node[key]
        node[edit.path[-1]] = edit.value
    config.model.backbone.pop('_delete_')
    assert prove(config, 64).gradient > 0

    @MODELS.register_module(force=True)
    class CutOff(MODELS.get('HadaptiveNet')):
        def forward(self, x):
            return tuple(y.detach() for y in super().forward(x))

    config.model.backbone.type = 'CutOff'
    with pytest.raises(RuntimeError, match='gradient of the first weight of the backbone is None'):
        prove(config, 64)


def test_comments_say_why():
    text = render_config('base.py', [Edit(('model', 'neck', 'in_channels'), [8], 'A reason.')])
    assert '# A reason.\n' in text
    assert 'in_channels=[8]' in text
