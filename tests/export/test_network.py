from copy import deepcopy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from hadaptive_runtime import Preprocessing
from mmdet_hadaptive.export import ExportError, ExportNetwork

from .conftest import CONFIG

CONFIGS = CONFIG.parents[1]
ATSS = 'atss/atss_hadaptive-s_fpn_1x_coco.py'
FCOS = 'fcos/fcos_hadaptive-s_fpn_gn-head_1x_coco.py'
HEADS = [
    'ssdlite/ssdlite_hadaptive-s_8xb24-600e_coco.py',
    'retinanet/retinanet_hadaptive-s_fpn_1x_coco.py',
    'retinanet/retinanet-lite_hadaptive-s_384_600e_coco.py',
    ATSS,
    'gfl/gfl_hadaptive-s_fpn_1x_coco.py',
    FCOS,
    'rtmdet/rtmdet-tiny_hadaptive-s_8xb32-300e_coco.py',
]
# Height and width.
SIZE = (96, 160)
PREPROCESSING = Preprocessing(SIZE, SIZE, False, 'RGB', (0.0,) * 3, (1.0,) * 3, (0.0,) * 3)


def build(name):
    init_default_scope('mmdet')
    return MODELS.build(Config.fromfile(CONFIGS / name).model)


def random_outputs(detector):
    """Spread, so that no two scores tie and many boxes leave the image."""
    with torch.no_grad():
        return [
            [torch.randn_like(level) for level in levels]
            for levels in detector(torch.zeros(1, 3, *SIZE), mode='tensor')
        ]


@pytest.mark.parametrize('name', HEADS)
def test_boxes_and_scores_are_those_of_mmdet(name, monkeypatch):
    detector = build(name)
    head = detector.bbox_head
    network = ExportNetwork(detector, 'boxes', PREPROCESSING)
    outputs = random_outputs(detector)
    monkeypatch.setattr(detector, 'forward', lambda images, mode: outputs)
    with torch.no_grad():
        boxes, scores = network(torch.zeros(1, 3, *SIZE))
        (expected,) = head.predict_by_feat(
            *outputs,
            batch_img_metas=[dict(img_shape=SIZE)],
            cfg=deepcopy(head.test_cfg) | dict(score_thr=0.0, nms_pre=10**7, min_bbox_size=-1),
            with_nms=False,
        )
    assert scores.shape == (1, boxes.shape[1], head.num_classes)
    order = scores.flatten().argsort(descending=True, stable=True)[:500]
    theirs = expected[expected.scores.argsort(descending=True, stable=True)[:500]]
    assert len(expected) == scores.numel()
    assert torch.allclose(scores.flatten()[order], theirs.scores, atol=1e-6)
    same = order % head.num_classes == theirs.labels
    close = (boxes[0, order // head.num_classes] - theirs.bboxes).abs().amax(1) < 1e-3
    # Neighbours whose scores differ in the last bit may change places.
    assert (same & close).float().mean() > 0.98
    # Some lie between the height and the width.
    assert (theirs.bboxes[:, 2] > SIZE[0]).any()


@pytest.mark.parametrize('name', [HEADS[0], ATSS, FCOS])
def test_candidates_are_those_of_mmdet(name, monkeypatch):
    detector = build(name)
    head = detector.bbox_head
    network = ExportNetwork(detector, 'detections', PREPROCESSING)
    outputs = random_outputs(detector)
    monkeypatch.setattr(detector, 'forward', lambda images, mode: outputs)
    with torch.no_grad():
        boxes, scores, labels, class_scores = network(torch.zeros(1, 3, *SIZE))
        (expected,) = head.predict_by_feat(
            *outputs, batch_img_metas=[dict(img_shape=SIZE)], with_nms=False
        )
    assert scores.shape == (1, network.num_candidates)
    order = scores[0].argsort(descending=True, stable=True)[: len(expected)]
    theirs = expected[expected.scores.argsort(descending=True, stable=True)]
    assert torch.allclose(scores[0, order], theirs.scores, atol=1e-6)
    # Those that score less than the threshold.
    assert scores.count_nonzero() == len(expected) > 400
    same = labels[0, order] == theirs.labels
    close = (boxes[0, order] - theirs.bboxes).abs().amax(1) < 1e-3
    assert (same & close).float().mean() > 0.98
    assert torch.equal(class_scores.sum(1), scores)
    assert torch.equal(class_scores.gather(1, labels[:, None])[:, 0], scores)


def test_boxes_without_an_area_are_no_candidates(monkeypatch):
    detector = build(HEADS[0])
    head = detector.bbox_head
    head.test_cfg.min_bbox_size = 0
    network = ExportNetwork(detector, 'detections', PREPROCESSING)
    outputs = random_outputs(detector)
    monkeypatch.setattr(detector, 'forward', lambda images, mode: outputs)
    with torch.no_grad():
        boxes, scores, *_ = network(torch.zeros(1, 3, *SIZE))
        (expected,) = head.predict_by_feat(
            *outputs, batch_img_metas=[dict(img_shape=SIZE)], with_nms=False
        )
    valid = scores[0] > 0
    assert 0 < valid.sum() == len(expected) < valid.numel()
    assert (boxes[0, valid, 2:] - boxes[0, valid, :2]).min() > 0


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('faster_rcnn/faster-rcnn_hadaptive-s_fpn_1x_coco.py', r'FasterRCNN .* --outputs features'),
        ('yolox/yolox-tiny_hadaptive-s_8xb8-300e_coco.py', r'YOLOXHead .* --outputs head'),
    ],
)
def test_detectors_that_cannot_be_decoded(name, message):
    with pytest.raises(ExportError, match=message):
        ExportNetwork(build(name), 'boxes', PREPROCESSING)
