import pytest
import torch
from mmengine.config import Config

from mmdet_hadaptive.utils.detectors import load_detector
from mmdet_hadaptive.utils.safe_loading import UnreadableCheckpointError


@pytest.fixture(scope='module')
def config(pytestconfig):
    return Config.fromfile(pytestconfig.rootpath / 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py')


@pytest.fixture(scope='module')
def weights(config):
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    return MODELS.build(config.model).state_dict()


@pytest.fixture
def load(config, weights, tmp_path):
    """Loads a checkpoint of these weights, some of them changed."""

    def load_changed(change=lambda state: None, **options):
        state = dict(weights)
        change(state)
        meta = dict(dataset_meta=dict(classes=('disk', 'ring', 'triangle', 'cross')))
        torch.save(dict(meta=meta, state_dict=state), tmp_path / 'a.pth')
        other = Config(config.to_dict())
        other.merge_from_dict(options)
        return load_detector(other, tmp_path / 'a.pth')

    return load_changed


def test_all_weights_are_loaded(load, weights):
    # MMDetection 2 stored averaged weights beside the others.
    detector, classes = load(lambda state: state.update(ema_backbone_weight=torch.zeros(2)))
    assert classes == ['disk', 'ring', 'triangle', 'cross']
    loaded = detector.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


NAME = 'neck.extra_layers.0.0.conv.weight'


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (lambda state: state.pop(NAME), f'1 weights are missing, such as {NAME}'),
        (
            lambda state: state.update(more=torch.zeros(2)),
            '1 weights are not in this detector, such as more',
        ),
        (
            lambda state: state.update({NAME: torch.zeros(2)}),
            rf'1 weights have another shape, such as {NAME} \(\(2,\), here \(',
        ),
    ],
)
def test_a_part_of_the_weights_is_refused(load, change, reason):
    with pytest.raises(UnreadableCheckpointError, match=f'with: {reason}'):
        load(change)


def test_other_classes_are_named(load):
    reason = r'trained on 4 classes \(disk, ring, triangle, cross\), the config has 2; '
    with pytest.raises(UnreadableCheckpointError, match=reason):
        load(**{'model.bbox_head.num_classes': 2})


def test_the_backbone_says_what_does_not_fit(load):
    with pytest.raises(UnreadableCheckpointError, match=r"build the backbone with arch='small'"):
        load(**{'model.backbone.arch': 'small-ir'})
