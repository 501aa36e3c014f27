import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


def detector(head):
    """A tiny SSDLite or RetinaNet for two classes on 64 x 64 images."""
    if head == 'PatchedSSDHead':
        neck = None
        bbox_head = dict(
            type=head,
            num_classes=2,
            in_channels=(96, 128),
            use_depthwise=True,
            norm_cfg=dict(type='BN'),
            anchor_generator=dict(
                type='SSDAnchorGenerator',
                scale_major=False,
                strides=[16, 32],
                ratios=[[2], [2]],
                min_sizes=[16, 32],
                max_sizes=[32, 60],
            ),
        )
        train_cfg = dict(smoothl1_beta=1.0, neg_pos_ratio=3, allowed_border=-1, pos_weight=-1)
        out_indices = (3, 4)
    else:
        neck = dict(type='FPN', in_channels=[64, 96, 128], out_channels=16, num_outs=3)
        bbox_head = dict(
            type=head,
            num_classes=2,
            num_ins=3,
            in_channels=16,
            feat_channels=24,
            stacked_convs=2,
            norm_cfg=dict(type='BN'),
            anchor_generator=dict(
                type='AnchorGenerator', scales=[4], ratios=[1.0], strides=[8, 16, 32]
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
            loss_cls=dict(type='FocalLoss', use_sigmoid=True),
            loss_bbox=dict(type='L1Loss'),
        )
        train_cfg = dict(allowed_border=-1, pos_weight=-1)
        out_indices = (2, 3, 4)
    model = MODELS.build(
        ConfigDict(
            type='SingleStageDetector',
            backbone=dict(type='HadaptiveNet', arch='small', out_indices=out_indices),
            neck=neck,
            bbox_head=bbox_head,
            train_cfg=dict(
                assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5),
                sampler=dict(type='PseudoSampler'),
                **train_cfg,
            ),
            test_cfg=dict(
                nms_pre=100, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=9
            ),
        )
    )
    model.init_weights()
    return model


def samples(boxes):
    result = []
    for own in boxes:
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(64, 64),
                ori_shape=(64, 64),
                pad_shape=(64, 64),
                batch_input_shape=(64, 64),
                scale_factor=(1.0, 1.0),
            ),
            gt_instances=InstanceData(
                bboxes=torch.tensor(own).view(-1, 4).float(),
                labels=torch.zeros(len(own), dtype=torch.long),
            ),
        )
        result.append(sample)
    return result


def total(losses):
    parts = [v if isinstance(v, list) else [v] for k, v in losses.items() if 'loss' in k]
    return sum(value.sum() for part in parts for value in part)


HEADS = ['PatchedSSDHead', 'RetinaLiteHead']


@pytest.mark.parametrize('head', HEADS)
def test_predicts(head):
    model = detector(head).eval()
    with torch.no_grad():
        results = model.predict(torch.randn(2, 3, 64, 64), samples([[], []]))
    for result in results:
        found = result.pred_instances
        assert 0 < len(found) <= 9
        assert found.bboxes.shape == (len(found), 4)
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
        assert set(found.labels.tolist()) <= {0, 1}


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize(
    'boxes',
    [[[[5, 5, 30, 40]], [[0, 0, 64, 64], [9, 9, 20, 20]]], [[], [[5, 5, 30, 40]]], [[], []]],
    ids=['boxes', 'one image without', 'none at all'],
)
def test_loss_is_finite_with_and_without_boxes(head, boxes):
    model = detector(head).train()
    loss = total(model.loss(torch.randn(2, 3, 64, 64), samples(boxes)))
    loss.backward()
    assert loss.isfinite()
    # The focal loss of RetinaNet learns from the background, too.
    assert (loss > 0) == (any(boxes) or head == 'RetinaLiteHead')
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_loss_falls_by_training():
    torch.manual_seed(0)
    model = detector('PatchedSSDHead').train()
    image, truth = torch.randn(2, 3, 64, 64), samples([[[8, 8, 40, 40]], [[20, 16, 60, 50]]])
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    losses = []
    for _ in range(40):
        loss = total(model.loss(image, truth))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_retina_lite_shares_convolutions_and_separates_norms():
    head = detector('RetinaLiteHead').bbox_head
    for towers in (head.cls_convs, head.reg_convs):
        assert [len(tower) for tower in towers] == [5, 5, 5]
        for layers in zip(*towers, strict=True):
            assert len({id(layer.conv) for layer in layers}) == 1
            assert len({id(layer.norm) for layer in layers}) == 3
    kernels = {m.kernel_size for m in head.modules() if isinstance(m, torch.nn.Conv2d)}
    assert kernels == {(3, 3), (1, 1)}
    for module in head.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            assert module.groups == module.in_channels
