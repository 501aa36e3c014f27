import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from research.benchmark.training_speed import VARIANTS, hours_on_coco, make_training_step

ROOT = Path(__file__).parents[3]


class Detector(nn.Module):
    """As much of a detector as a training step needs, which notes how it is called."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 2, 3)
        self.seen = []

    def init_weights(self):
        pass

    def loss(self, images, samples):
        y = self.backbone(images)
        self.seen.append((images, samples, y))
        return dict(loss_cls=y.float().square().mean())

    def parse_losses(self, losses):
        return sum(losses.values()), losses


@pytest.mark.parametrize('name', VARIANTS)
def test_steps_train_in_the_way_that_is_named(name, monkeypatch):
    detector, compiled = Detector(), []
    monkeypatch.setattr(MODELS, 'build', lambda config: detector)
    monkeypatch.setattr(nn.Module, 'compile', lambda _, backend: compiled.append(backend))
    model = dict(bbox_head=dict(num_classes=1))
    step = make_training_step(model, VARIANTS[name], batch=2, side_length=32, backend='eager')
    losses = [step() for _ in range(3)]
    assert losses[2] < losses[0]
    images, samples, y = detector.seen[-1]
    assert images.shape == (2, 3, 32, 32)
    for sample in samples:
        boxes = sample.gt_instances.bboxes
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert boxes.min() >= 0
        assert boxes.max() <= 32
        assert sample.gt_instances.labels.tolist() == [0] * 4
    assert str(y.dtype) == f'torch.{name.split(",")[0]}'
    for tensor in (images, detector.backbone.weight):
        is_last = tensor.is_contiguous(memory_format=torch.channels_last)
        assert is_last == ('channels_last' in name)
    assert compiled == (['eager'] if 'compiled' in name else [])


def test_hours():
    # 16 images a second in each of 8 processes.
    assert hours_on_coco(128) == pytest.approx(118_287 * 600 / 128 / 60 / 60)
    assert hours_on_coco(100, epochs=1) == pytest.approx(0.3286, rel=1e-3)


def test_the_table(tmp_path, monkeypatch, capsys, shapes):
    config = tmp_path / 'ssdlite_tiny_shapes.py'
    config.write_text(f"""
_base_ = {str(ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py')!r}
small = dict(type='ghost', expand=2, kernel=2, stride=2)
model = dict(backbone=dict(arch=dict(
    _delete_=True,
    stages=[
        [dict(type='conv', channels=8, kernel=2, stride=2, act=True)],
        [dict(type='conv', channels=8, kernel=2, stride=2, act=True)],
        *([dict(small, channels=c)] for c in (8, 96, 128)),
    ],
    final_channels=8,
)))
""")
    tool = ROOT / 'research/tools/measure_training.py'
    options = ['--device', 'cpu', '--side-length', '64', '--batch-size', '2', '--rounds', '2']
    options += ['--only', 'float32', 'bfloat16', '--data-root', shapes, '--cores', '4']
    monkeypatch.setattr(sys, 'argv', list(map(str, [tool, config, config, *options])))
    runpy.run_path(str(tool), run_name='__main__')
    rows = [line.strip('| ').split(' | ') for line in capsys.readouterr().out.splitlines()]
    rows = [row for row in rows if len(row) == 4]
    assert rows[0] == ['CPU: images/s', 'tiny', 'tiny (ratio)', 'hours, 8 devices']
    names = [row[0] for row in rows[1:]]
    assert names == ['float32', 'bfloat16', 'input of 4 cores']
    for row, devices in zip(rows[1:], (8, 8, 1), strict=True):
        assert float(row[3]) == pytest.approx(hours_on_coco(devices * float(row[1])), rel=0.05)
