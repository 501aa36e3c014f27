"""Losses, the linear classifier, and a run that is stopped and goes on."""

import argparse
import json
import shutil
import sys

import pytest
import torch
from torch import nn

from mmdet_hadaptive.models import ARCHITECTURES, HadaptiveNet
from mmdet_hadaptive.models.architectures import ach, conv, ghost, inverted_residual
from research.distillation import draw_progress, linear_classifier, train
from research.distillation.students import Student, Targets, distillation_loss, fit_size
from research.distillation.teacher import EMBEDDING, MAP_CHANNELS

# Quick: there is a kernel to be made for every shape of a convolution.
STAGES = [
    [conv(8, 2, stride=2, act=False)],
    [conv(8, 2, stride=2)],
    [ghost(8, 2, 2)],
    [ghost(8, 2, 2)],
]
TABLES = {
    'tiny-ir': dict(
        stages=[*STAGES, [ghost(8, 2, 2), inverted_residual(8, 16, 7)]], final_channels=8
    ),
    'tiny': dict(stages=[*STAGES, [ghost(8, 2, 2), ach(8, 3, 7)]], final_channels=8),
}


class DrawnTeacher(nn.Module):
    """Has a classifier, as the teacher has."""

    def __init__(self, wheel, mosaic):
        super().__init__()
        torch.manual_seed(3)
        self.classifier = nn.Linear(EMBEDDING, 10)


def drawn_outputs(batch, size):
    torch.manual_seed(4)
    maps = [
        5 * torch.randn(batch, c, size // (8 << i), size // (8 << i)) + 3
        for i, c in enumerate(MAP_CHANNELS)
    ]
    return [*maps, torch.rand(batch, EMBEDDING)]


@pytest.fixture
def args(tmp_path, monkeypatch):
    if not (shutil.which('g++') and shutil.which('ninja')):
        pytest.skip('the fast layers need g++ and ninja: pip install ninja')
    monkeypatch.setattr(train, 'Teacher', DrawnTeacher)
    for arch, table in TABLES.items():
        monkeypatch.setitem(ARCHITECTURES, arch, table)
    return argparse.Namespace(
        photos=tmp_path, wheel=None, out=tmp_path, archs=list(TABLES), crops=2400,
        lr=2e-3, kl_weight=0.2, batch_size=4, mosaic=2, device='cpu', seed=0,
    )  # fmt: skip


def test_a_student_that_says_the_same_has_no_loss():
    targets = Targets(nn.Linear(EMBEDDING, 10))
    outputs = drawn_outputs(6, 64)
    targets.fit(outputs)
    wanted = [targets.standardise(index, value) for index, value in enumerate(outputs)]
    for value in wanted:
        flat = value.transpose(0, 1).flatten(1)
        assert flat.mean(1).abs().max() < 1e-4
        assert flat.std(1) == pytest.approx(1, abs=1e-3)
    loss, terms = distillation_loss(wanted, targets, wanted, 0.2)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-5)
    other = [value + 1 for value in wanted]
    assert distillation_loss(other, targets, wanted, 0.2)[1]['map16'] == pytest.approx(0.5)
    assert terms.keys() == {'map8', 'map16', 'map32', 'embedding', 'kl'}


def test_the_classes_are_those_of_the_embedding_as_it_was():
    classifier = nn.Linear(EMBEDDING, 10)
    targets = Targets(classifier)
    outputs = drawn_outputs(6, 64)
    targets.fit(outputs)
    standard = targets.standardise(3, outputs[3])
    torch.testing.assert_close(
        targets.logits(standard), classifier(outputs[3]), atol=1e-5, rtol=1e-4
    )


def test_maps_are_fitted_to_the_students():
    value = torch.arange(16.0).view(1, 1, 4, 4)
    assert fit_size(value, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert fit_size(value, 3).shape == (1, 1, 3, 3)
    assert fit_size(value, 4) is value
    embedding = torch.ones(2, 5)
    assert fit_size(embedding, 2) is embedding


@pytest.mark.parametrize(('arch', 'mosaic'), [('small-ir', 1), ('small-ir', 2), ('small', 2)])
def test_a_student_answers_in_the_teachers_shapes(arch, mosaic):
    torch.manual_seed(0)
    student = Student(arch, mosaic).eval()
    crops = torch.randn(4, 3, 64, 64)
    outputs = student(crops)
    assert [tuple(v.shape) for v in outputs] == [
        (4, 40, 8, 8), (4, 112, 4, 4), (4, 320, 2, 2), (4, 1280),
    ]  # fmt: skip
    # With a mosaic it sees what is beside a crop.
    crops[1] = 0
    same = [torch.equal(a[0], b[0]) for a, b in zip(outputs, student(crops), strict=True)]
    assert same == [mosaic == 1] * 4


def test_both_students_learn_and_a_run_goes_on_where_it_was(args):
    run = train.Distillation(args)
    outputs = drawn_outputs(4, 128)
    run.targets.fit(outputs)
    run.students.train()
    pixels = torch.randint(0, 255, (4, 3, 128, 128), dtype=torch.uint8)
    run.seconds = 100.0
    terms = [run.step(pixels, outputs) for _ in range(15)]
    for arch in args.archs:
        assert terms[-1][f'{arch}/map16'] < 0.9 * terms[0][f'{arch}/map16']
    run.save()
    again = train.Distillation(args)
    assert (again.views, again.seconds) == (60, 100.0)
    state = again.optimizer.state_dict()['state']
    assert len(state) == len(run.optimizer.state_dict()['state']) > 0
    for name in ('students', 'averages', 'targets'):
        own, other = getattr(run, name).state_dict(), getattr(again, name).state_dict()
        assert all(torch.equal(own[key], other[key]) for key in own)
    # The average is behind the weights that are trained.
    weight = run.students['tiny'].backbone.stem[0].conv.weight
    assert not torch.equal(weight, run.averages['tiny'].stem[0].conv.weight)


def test_one_of_the_students_goes_on_alone(args):
    run = train.Distillation(args)
    run.views = 600
    run.save()
    args.archs = ['tiny']
    alone = train.Distillation(args)
    assert alone.share == 0.25
    own, other = alone.students.state_dict(), run.students.state_dict()
    assert own.keys() == {key for key in other if key.startswith('tiny.')}
    assert all(torch.equal(value, other[key]) for key, value in own.items())
    outputs = drawn_outputs(4, 128)
    alone.step(torch.randint(0, 255, (4, 3, 128, 128), dtype=torch.uint8), outputs)
    alone.save()
    assert len(train.Distillation(args).optimizer.state_dict()['state']) > 0


def test_the_backbones_are_written_as_the_package_keeps_them(args):
    run = train.Distillation(args)
    run.write_backbones()
    for arch in args.archs:
        file = args.out / f'{arch}_distilled.pth'
        assert torch.load(file, weights_only=True)['meta']['arch'] == arch
        net = HadaptiveNet(
            arch, init_cfg=dict(type='Pretrained', checkpoint=str(file), prefix='backbone.')
        )
        net.init_weights()
        average = run.averages[arch]
        for own, scale in (
            (lambda n: n.stem[0].conv, 8),
            (lambda n: n.stage4[0].depthwise.conv, 1),
        ):
            expected = scale * own(average).weight.half().float()
            assert torch.equal(own(net).weight, expected)


@pytest.mark.parametrize('arch', ['small', 'small-ir'])
def test_enlarged_weights_compute_the_same(arch):
    torch.manual_seed(0)
    net = HadaptiveNet(arch, out_indices=(2, 3, 4)).eval()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 2.0)
            norm.running_mean.normal_()
            norm.running_var.uniform_(1e-4, 1.0)
    x = torch.randn(1, 3, 64, 64)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        before = net(x)
        net.load_state_dict(train.enlarge_early_weights(state))
        after = net(x)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(a.abs().max()))
    factors = {
        name: float(
            net.state_dict()[f'{name}.conv.weight'].norm() / state[f'{name}.conv.weight'].norm()
        )
        for name in (
            'stem.0',
            'stage1.0',
            'stage2.1.depthwise',
            'stage3.1.depthwise',
            'stage4.0.depthwise',
        )
    }
    assert [*factors.values()] == pytest.approx([8, 8, 4, 2, 1], rel=1e-2)
    assert factors['stage4.0.depthwise'] == 1


def test_channels_of_a_small_variance_are_not_enlarged():
    state = HadaptiveNet('small-ir').state_dict()
    weight, variance = state['stem.0.conv.weight'], state['stem.0.norm.running_var']
    variance[0] = 9e-4
    new = train.enlarge_early_weights(state)
    torch.testing.assert_close(new['stem.0.conv.weight'][0], weight[0], rtol=0, atol=0)
    torch.testing.assert_close(new['stem.0.conv.weight'][1], 8 * weight[1])
    assert new['stem.0.norm.running_var'][0] == variance[0]


def test_progress_is_noted(args):
    run = train.Distillation(args)
    run.views = 1200
    run.note(loss=1.5)
    (line,) = (args.out / 'progress.jsonl').read_text().splitlines()
    assert json.loads(line)['share'] == 0.5
    assert json.loads(line)['lr'] == pytest.approx(1e-3)
    assert json.loads(line)['loss'] == 1.5


def test_the_learning_rate_rises_and_falls():
    rates = [train.learning_rate(share) for share in (0.0, 0.005, 0.01, 0.5, 1.0)]
    assert rates[0] < 0.02
    assert rates[1] == pytest.approx(0.51, abs=0.01)
    assert rates[2] > 0.99
    assert rates[3] == pytest.approx(0.5)
    assert rates[4] == 0


def test_an_average_follows():
    average, net = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    nn.init.constant_(net.weight, 3.0)
    net.running_mean.fill_(1.0)
    train.follow(average, net, 0.75)
    assert average.weight.tolist() == [1.5, 1.5]
    assert average.running_mean.tolist() == [0.25, 0.25]


def test_a_linear_classifier_finds_what_separates_and_nothing_else():
    torch.manual_seed(0)
    classes = torch.arange(4).repeat_interleave(40)
    training = torch.arange(160) % 2 == 0
    x = torch.randn(160, 12)
    assert linear_classifier.accuracy(x, classes, training) < 0.5
    x[torch.arange(160), classes] += 8
    assert linear_classifier.accuracy(x, classes, training) > 0.95


def test_an_image_amid_others_keeps_its_place():
    images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 6, 6)
    seen = []

    def net(x):
        seen.append(x)
        return x, x[..., ::2, ::2]

    maps = linear_classifier.surrounded(net)(images)
    assert seen[0].shape == (5, 3, 18, 18)
    assert len(seen[0].unique()) == 5
    torch.testing.assert_close(maps[0], images)
    torch.testing.assert_close(maps[1], images[..., ::2, ::2])


def test_the_progress_is_drawn(args, monkeypatch):
    run = train.Distillation(args)
    for views in (100, 200):
        run.views = views
        run.note(**{f'tiny/{term}': 1 / views for term in ('kl', 'map16', 'map32')})
    picture = args.out / 'picture.png'
    words = ['draw_progress.py', str(args.out / 'progress.jsonl'), str(picture)]
    monkeypatch.setattr('sys.argv', words)
    draw_progress.main()
    assert picture.stat().st_size > 1000


def test_a_backbone_is_measured_without_its_products(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(ARCHITECTURES, 'tiny', dict(TABLES['tiny']))
    net = HadaptiveNet('tiny', out_indices=(3, 4))
    state = {f'backbone.{name}': value for name, value in net.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'tiny.pth')
    torch.manual_seed(0)
    images = torch.randint(0, 255, (16, 3, 64, 64), dtype=torch.uint8)
    classes, training = torch.arange(16) % 2, torch.arange(16) < 8
    monkeypatch.setattr(
        linear_classifier, 'caltech', lambda folder, size: (images, classes, training)
    )
    monkeypatch.setattr(sys, 'argv', ['', str(tmp_path), 'tiny', str(tmp_path / 'tiny.pth')])
    linear_classifier.main()
    lines = capsys.readouterr().out.splitlines()[-4:]
    assert [line.rsplit(' ', 1)[0] for line in lines][:3] == [
        'accuracy',
        'surrounded by other images',
        'products constant',
    ]
    assert all(0 <= float(line.rsplit(' ', 1)[1]) <= 1 for line in lines)
