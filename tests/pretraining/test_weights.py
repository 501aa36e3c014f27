"""Weights that come with the package."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmdet.apis import inference_detector, init_detector
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import CheckpointLoader

from hadaptive_runtime import load_exported
from mmdet_hadaptive.models import HadaptiveNet
from mmdet_hadaptive.pretraining import pretrained_checkpoint

ROOT = Path(__file__).parents[2]
BCCD = 'ssdlite_small-ir_bccd'
DISTILLED = {arch: f'{arch}_distilled' for arch in ('small-ir', 'small', 'medium-ir')}
CONFIG = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s-ir_bccd.py'


@pytest.fixture(scope='module')
def cells():
    """A drawing of blood cells, BGR: red ones with pale middles, a white one with its nucleus."""
    y, x = np.mgrid[:480, :640]
    image = np.full((480, 640, 3), (205, 215, 220), np.float32)

    def disc(cx, cy, radius, colour):
        inside = 1 / (1 + np.exp(np.hypot(x - cx, y - cy) - radius))
        image[:] += inside[..., None] * (np.array(colour, np.float32) - image)

    for cx, cy in [(90, 90), (250, 80), (500, 90), (110, 300), (540, 330), (280, 400)]:
        disc(cx, cy, 50, (130, 140, 195))
        disc(cx, cy, 18, (170, 180, 205))
    disc(380, 240, 85, (190, 160, 190))
    disc(375, 235, 62, (140, 60, 110))
    return image.round().astype(np.uint8)


def test_they_are_plain_data_and_fit_the_backbone():
    weights = torch.load(pretrained_checkpoint(BCCD), weights_only=True)
    assert weights['meta']['config'] == CONFIG.name
    net = HadaptiveNet('small-ir', out_indices=(3, 4), norm_cfg=dict(type='BN', eps=0.001))
    prefix = 'backbone.'
    state = {
        key.removeprefix(prefix): value
        for key, value in weights['state_dict'].items()
        if key.startswith(prefix)
    }
    net.load_state_dict(state, strict=True)
    assert net.stage3[1].projection.conv.weight.dtype == torch.float32


def test_a_config_names_them():
    net = HadaptiveNet(
        'small-ir',
        init_cfg=dict(type='Pretrained', checkpoint=f'hadaptive://{BCCD}', prefix='backbone.'),
    )
    net.init_weights()
    state = torch.load(pretrained_checkpoint(BCCD), weights_only=True)['state_dict']
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[f'backbone.{name}'].to(value.dtype)), name


def test_the_template_starts_from_distilled_weights():
    config = Config.fromfile(CONFIG.with_stem('ssdlite_hadaptive-s-ir_custom'))
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model)
    model.init_weights()
    state = torch.load(pretrained_checkpoint(DISTILLED['small-ir']), weights_only=True)[
        'state_dict'
    ]
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, state[f'backbone.{name}'].to(value.dtype)), name


def test_the_metafiles_name_what_comes_with_the_package():
    named = {
        model['Weights']: Path(model['Config']).name
        for file in ROOT.glob('configs/*/metafile.yml')
        for model in yaml.safe_load(file.read_text())['Models']
        if 'Weights' in model
    }
    assert named.keys() == {f'hadaptive://{BCCD}'}
    for address, config in named.items():
        assert CheckpointLoader.load_checkpoint(address)['meta']['config'] == config


@pytest.mark.parametrize('arch', DISTILLED)
def test_plain_pytorch_takes_distilled_weights(arch, cells):
    weights = torch.load(pretrained_checkpoint(DISTILLED[arch]), weights_only=True)
    assert weights['meta']['arch'] == arch
    net = HadaptiveNet(arch, out_indices=(2, 3, 4)).eval()
    net.load_state_dict(
        {key.removeprefix('backbone.'): value for key, value in weights['state_dict'].items()}
    )
    image = torch.from_numpy(cells[:128, :128, ::-1].copy()).permute(2, 0, 1)[None].float()
    mean, deviation = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    x = (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(deviation).view(3, 1, 1)
    with torch.no_grad():
        maps = net(x)
    expected = {
        'small-ir': [1.1022, 1.9931, 0.4743],
        'small': [1.1299, 1.4404, 0.484],
        'medium-ir': [0.9381, 1.0248, 0.1936],
    }
    assert [float(y.std()) for y in maps] == pytest.approx(expected[arch], rel=1e-3)


@pytest.mark.parametrize('arch', DISTILLED)
def test_mmpretrain_takes_distilled_weights(arch):
    pytest.importorskip('mmpretrain')
    address = f'hadaptive://{DISTILLED[arch]}'
    init_default_scope('mmpretrain')
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(
                type='mmdet.HadaptiveNet',
                arch=arch,
                out_indices=(4,),
                init_cfg=dict(type='Pretrained', checkpoint=address, prefix='backbone.'),
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead',
                num_classes=5,
                in_channels=192 if arch == 'medium-ir' else 128,
            ),
        )
    )
    model.init_weights()
    state = CheckpointLoader.load_checkpoint(address)['state_dict']
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, state[f'backbone.{name}'].to(value.dtype)), name


def test_the_detector_finds_the_drawn_cells(cells):
    detector = init_detector(str(CONFIG), f'hadaptive://{BCCD}', device='cpu')
    found = inference_detector(detector, cells).pred_instances
    sure = found.scores > 0.5
    labels, boxes = found.labels[sure], found.bboxes[sure]
    assert detector.dataset_meta['classes'] == ('RBC', 'WBC', 'Platelets')
    (white,) = boxes[labels == 1]
    centre = (white[:2] + white[2:]) / 2
    assert (centre - torch.tensor([380.0, 240.0])).abs().max() < 15
    assert (labels == 0).sum() >= 4


def test_the_exported_file_finds_what_the_checkpoint_finds(cells):
    detector = init_detector(str(CONFIG), f'hadaptive://{BCCD}', device='cpu')
    expected = inference_detector(detector, cells).pred_instances
    exported = load_exported(Path(pretrained_checkpoint(BCCD)).with_suffix('.onnx'))
    found = exported(cells)
    sure = expected.scores > 0.3
    assert found.scores[: sure.sum()] == pytest.approx(expected.scores[sure].numpy(), abs=2e-3)
    assert found.boxes[: sure.sum()] == pytest.approx(expected.bboxes[sure].numpy(), abs=0.5)


def test_there_are_no_others():
    with pytest.raises(ValueError, match=rf"come with the package are .*{BCCD}.*; got 'resnet'"):
        pretrained_checkpoint('resnet')
    net = HadaptiveNet(init_cfg=dict(type='Pretrained', checkpoint='hadaptive://resnet'))
    with pytest.raises(ValueError, match='come with the package'):
        net.init_weights()


def test_without_mmdetection():
    code = (
        'import sys; sys.modules["mmdet"] = None\n'
        'import torch\n'
        'from mmdet_hadaptive.pretraining import pretrained_checkpoint\n'
        f'torch.load(pretrained_checkpoint("{BCCD}"), weights_only=True)\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
