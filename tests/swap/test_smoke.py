import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_hadaptive.swap import (
    SmokeTestError,
    apply_edits,
    build_for_smoke_test,
    load_source,
    plan_swap,
    smoke_test,
)
from mmdet_hadaptive.swap.smoke import count_detector_costs


def test_gradients_must_reach_the_backbone(retinanet):
    config = apply_edits(retinanet, plan_swap(retinanet))
    assert smoke_test(config, 64).gradient > 0

    @MODELS.register_module(force=True)
    class CutOff(MODELS.get('HadaptiveNet')):
        def forward(self, x):
            return tuple(y.detach() for y in super().forward(x))

    config.model.backbone.type = 'CutOff'
    with pytest.raises(SmokeTestError, match='gradient of the first weight of the backbone is N'):
        smoke_test(config, 64)


def test_a_loss_must_be_finite(retinanet):
    config = apply_edits(retinanet, plan_swap(retinanet))
    config.model.bbox_head.loss_cls.loss_weight = float('nan')
    with pytest.raises(SmokeTestError, match='the loss on random images is nan'):
        smoke_test(config, 64)


def test_costs_count_frozen_parameters_too(retinanet):
    costs = count_detector_costs(retinanet, 64)
    model = MODELS.build(retinanet.model)
    for part, module in (('detector', model), ('backbone', model.backbone)):
        trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
        # The stem and the first stage of the ResNet are frozen.
        assert trainable < costs[part].parameters
        assert costs[part].parameters == sum(p.numel() for p in module.parameters())
    assert 0 < costs['backbone'].macs < costs['detector'].macs


@pytest.mark.parametrize('as_list', [False, True])
def test_nothing_is_downloaded(retinanet, as_list):
    old = dict(type='Pretrained', checkpoint='https://nowhere.invalid/old.pth')
    retinanet.model.backbone.init_cfg = [old] if as_list else old
    assert isinstance(build_for_smoke_test(retinanet), torch.nn.Module)


def test_weights_without_a_type_are_not_downloaded_either():
    config = load_source('mmdet::pvt/retinanet_pvt-t_fpn_1x_coco.py')
    assert 'type' not in config.model.backbone.init_cfg
    config.model.backbone.init_cfg.checkpoint = 'https://nowhere.invalid/pvt.pth'
    assert isinstance(build_for_smoke_test(config), torch.nn.Module)


def test_what_cannot_be_built_is_told_in_one_line(retinanet):
    retinanet.model.bbox_head.type = 'No\nHead'
    with pytest.raises(SmokeTestError, match='KeyError') as caught:
        build_for_smoke_test(retinanet)
    assert '\n' not in str(caught.value)
    with pytest.raises(SmokeTestError, match='TypeError'):
        build_for_smoke_test(Config(dict(model=5)))


def test_a_prediction_must_be_finite(retinanet):
    config = apply_edits(retinanet, plan_swap(retinanet))

    @MODELS.register_module(force=True)
    class InfiniteScores(MODELS.get('RetinaNet')):
        def test_step(self, data):
            results = super().test_step(data)
            results[0].pred_instances.scores.fill_(float('inf'))
            return results

    config.model.type = 'InfiniteScores'
    config.model.test_cfg.score_thr = 0.0
    with pytest.raises(SmokeTestError, match=r'^scores of a prediction on random images are not'):
        smoke_test(config, 64)


def test_a_gradient_of_zero_is_none(retinanet):
    config = apply_edits(retinanet, plan_swap(retinanet))

    @MODELS.register_module(force=True)
    class DeadBackbone(MODELS.get('HadaptiveNet')):
        def forward(self, x):
            return tuple(0 * y for y in super().forward(x))

    config.model.backbone.type = 'DeadBackbone'
    with pytest.raises(SmokeTestError, match='gradient of the first weight of the backbone is t'):
        smoke_test(config, 64)
