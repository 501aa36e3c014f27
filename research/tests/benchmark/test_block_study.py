import json

import cv2
import numpy as np
import pytest
import torch

from mmdet_hadaptive.models import HadaptiveNet
from mmdet_hadaptive.utils.costs import count_costs
from research.benchmark import block_study
from research.benchmark.block_study import (
    Classifier,
    Split,
    StudyRun,
    load_tiny_imagenet,
    tabulate_study,
    train_study,
)
from research.benchmark.study_blocks import (
    KINDS,
    ContextGate,
    FixedExpansion,
    OuterProducts,
    make_backbone,
)

CLASSES = 4


@pytest.fixture(scope='module')
def tiny_imagenet(tmp_path_factory):
    """Four classes of one colour each, laid out as the set is distributed."""
    root = tmp_path_factory.mktemp('tiny-imagenet-200')
    rng = np.random.default_rng(0)
    names = [f'n{i}' for i in range(CLASSES)]
    (root / 'val/images').mkdir(parents=True)
    lines = []
    for label, name in enumerate(names):
        (root / 'train' / name / 'images').mkdir(parents=True)
        for i in range(block_study._HELD_OUT + 6):
            pixels = rng.integers(0, 40, (64, 64, 3), np.uint8)
            pixels[..., label % 3] += np.uint8(80 + 60 * (label // 3))
            file = root / 'train' / name / 'images' / f'{name}_{i:03d}.JPEG'
            cv2.imwrite(str(file), pixels)
            if i < 2:
                cv2.imwrite(str(root / f'val/images/{name}_{i}.JPEG'), pixels)
                lines.append(f'{name}_{i}.JPEG\t{name}\t0\t0\t62\t62')
    (root / 'val/val_annotations.txt').write_text('\n'.join(lines))
    (root / 'wnids.txt').write_text('\n'.join(names[::-1]))
    return root


@pytest.mark.parametrize('kind', KINDS)
def test_blocks_cost_the_same(kind):
    published = count_costs(HadaptiveNet('small', out_indices=(5,)), 64, 64)
    costs = count_costs(make_backbone(kind), 64, 64)
    assert costs.macs == pytest.approx(published.macs, rel=5e-3)
    # Gates have many parameters for their multiply-accumulates, one for each image.
    assert costs.parameters == pytest.approx(published.parameters, rel=0.09)
    if kind != 'gated':
        assert costs.parameters == pytest.approx(published.parameters, rel=0.02)
    if kind == 'inverted_residual':
        assert costs == count_costs(HadaptiveNet('small-ir', out_indices=(5,)), 64, 64)


@pytest.mark.parametrize('kind', KINDS)
def test_products_start_without_effect(kind):
    """Where they can be told apart, their mean and they themselves are zero; gates are not."""
    model = Classifier(kind, CLASSES)
    images = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8)
    # With the statistics of the images, so that all layers matter.
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    model(block_study._normalized(images))
    model.eval()
    train = Split(images, torch.zeros(8, dtype=torch.long))
    before = model(block_study._normalized(images))
    with block_study._products_replaced(model, train) as replaced:
        after = model(block_study._normalized(images))
    assert replaced == (kind in ('published', 'fixed', 'outer', 'gated'))
    assert torch.equal(before, after) == (kind not in ('published', 'gated'))
    assert torch.equal(model(block_study._normalized(images)), before)


def test_products():
    x = torch.randn(2, 6, 3, 4) * 4
    gates = x.clamp(0, 6)
    outer = OuterProducts(2, 3)(x)
    assert torch.equal(outer[:, :6], x)
    assert outer.shape[1] == 6 + 6
    assert torch.equal(outer[:, 6 + 3 + 1], gates[:, 1] * x[:, 3])
    fixed = FixedExpansion(6, 4)
    fixed.pointwise = torch.nn.Identity()
    y = fixed(x)
    assert y.shape[1] == fixed.out_channels == 12
    # The pairs in order: 01 02 03 12 13 23.
    assert torch.equal(y[:, 6 + 4], gates[:, 1] * x[:, 3])


def test_gates_depend_on_the_mean_of_each_channel():
    gate = ContextGate(6, 4)
    x = torch.randn(2, 6, 3, 4)
    factors = gate(x) / x
    assert torch.allclose(factors, gate.gate(x.mean((2, 3), keepdim=True)).expand_as(x), atol=1e-5)
    assert factors.min() >= 0
    assert factors.max() <= 1
    # Where a pixel is does not matter.
    assert torch.allclose(gate(x.flip(2)), gate(x).flip(2), atol=1e-6)


def test_classes_and_splits(tiny_imagenet):
    train, val = load_tiny_imagenet(tiny_imagenet, 2)
    # Of the names in order every second one.
    assert train.labels.tolist() == [0] * 6 + [1] * 6
    assert val.labels.tolist() == [0] * 52 + [1] * 52
    # In RGB: blue is the third channel.
    assert train.images.shape[1:] == (3, 64, 64)
    assert train.images[0].float().mean((1, 2)).argmax() == 2
    assert train.images[6].float().mean((1, 2)).argmax() == 0
    with pytest.raises(ValueError, match=r'classes must be in 1\.\.4 .*, got 5'):
        load_tiny_imagenet(tiny_imagenet, 5)


def test_shifted_and_mirrored():
    images = torch.arange(64, dtype=torch.float).expand(40, 1, 64, 64)
    rows = block_study._augmented(images)[:, 0, 30]
    steps = rows[:, 33] - rows[:, 32]
    # Rising or falling by one a pixel, shifted by at most eight.
    assert set(steps.tolist()) == {1.0, -1.0}
    rising = rows[steps > 0]
    assert ((rising[:, 32] - 32).abs() <= 8).all()
    assert len(set(rising[:, 32].tolist())) > 3


def test_learns_resumes_and_does_not_repeat(tiny_imagenet, tmp_path, monkeypatch):
    monkeypatch.setattr(block_study, '_BATCH', 12)
    runs = [StudyRun('outer', CLASSES, 4)]
    whole = train_study(runs, tiny_imagenet, tmp_path / 'a')
    # That of guessing is 1.39.
    assert whole[0]['loss'] < 1.3
    assert whole[0]['constant'] is not None

    class KilledError(Exception):
        pass

    def kill(*args, **kwargs):
        if (tmp_path / 'b/outer_4_4_0.pth').exists():
            raise KilledError
        return epoch(*args, **kwargs)

    epoch = block_study._train_epoch
    with monkeypatch.context() as patch:
        patch.setattr(block_study, '_train_epoch', kill)
        with pytest.raises(KilledError):
            train_study(runs, tiny_imagenet, tmp_path / 'b')
    assert train_study(runs, tiny_imagenet, tmp_path / 'b') == whole

    # Neither trained nor read again.
    assert train_study(runs, tmp_path / 'nowhere', tmp_path / 'b') == whole
    records = [json.loads(line) for line in (tmp_path / 'b/results.jsonl').read_text().splitlines()]
    assert records == whole


def test_table():
    record = dict(
        classes=50, epochs=10, kind='star', top1=40.0, constant=None, loss=2.0, parameters=1000
    )
    records = [record | dict(macs=1.5e6), record | dict(macs=1.5e6, top1=42.0)]
    records.append(record | dict(kind='outer', constant=35.5, macs=2e6))
    table = tabulate_study(records)
    assert '| star | 50, 10 | 2 | 41.0 ± 1.4 |  | 2.000 | 1,000 | 1.50 |' in table
    assert '| outer | 50, 10 | 1 | 40.0 | -4.5 |' in table
