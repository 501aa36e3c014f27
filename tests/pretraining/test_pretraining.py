"""Classifiers trained by MMPretrain, and detectors that start from them."""

import argparse
import math
import re
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import Compose
from mmengine.registry import MODELS, init_default_scope
from short_training import SHORT_TRAINING

from mmdet_hadaptive.models import ARCHITECTURES

ROOT = Path(__file__).parents[2]
IN1K = ROOT / 'configs/pretrain/hadaptive-s_8xb128-300e_in1k.py'
SSDLITE = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_8xb24-600e_coco.py'
# What a search finds starts from scratch.
DETECTORS = sorted(
    path
    for path in ROOT.glob('configs/*/*hadaptive-*.py')
    if path.parent.name not in ('pretrain', 'search')
)


TWO_EPOCHS = (
    '--cfg-options',
    *SHORT_TRAINING,
    'train_cfg.max_epochs=2',
    'param_scheduler.0.end=1',
    'param_scheduler.1.begin=1',
)


@pytest.fixture(scope='module')
def trained(tmp_path_factory, run_warm):
    """Two epochs on a tiny ImageNet; returns the working directory and the output."""
    work = tmp_path_factory.mktemp('pretraining')
    root = work / 'data/imagenet'
    (root / 'meta').mkdir(parents=True)
    noise = np.random.default_rng(0)
    for split, count in (('train', 8), ('val', 4)):
        (root / split).mkdir()
        names = [f'{i}.png' for i in range(count)]
        for name in names:
            cv2.imwrite(str(root / split / name), noise.integers(0, 255, (64, 64, 3), np.uint8))
        lines = [f'{name} {i % 2}\n' for i, name in enumerate(names)]
        (root / f'meta/{split}.txt').write_text(''.join(lines))
    output = run_warm(ROOT / 'tools/train.py', IN1K, '--work-dir', 'run', *TWO_EPOCHS, cwd=work)
    return work, output


def classifier(path):
    config = Config.fromfile(path)
    init_default_scope(config.default_scope)
    return config, MODELS.build(config.model)


def merged(path, words):
    """A config with overrides from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    config = Config.fromfile(path)
    config.merge_from_dict(parser.parse_args(['--cfg-options', *words]).cfg_options)
    return config


@pytest.mark.parametrize(
    ('letter', 'parameters'), [('s', 2_102_632), ('m', 3_096_228), ('l', 6_110_638)]
)
def test_sizes_are_those_of_the_release(letter, parameters):
    config, model = classifier(IN1K.with_name(f'hadaptive-{letter}_1xb64-200e_cifar100.py'))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == parameters
    assert config.train_dataloader.dataset.type == 'CIFAR100'
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 100)


def test_the_recipe_is_that_of_the_release():
    config, model = classifier(IN1K.with_name('hadaptive-s_1xb64-200e_cifar100.py'))
    assert config.optim_wrapper == dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4))
    warmup, cosine = config.param_scheduler
    assert (warmup.end, cosine.begin, cosine.eta_min) == (10, 10, 1e-6)
    assert (config.train_cfg.max_epochs, config.train_dataloader.batch_size) == (200, 64)
    layers = [type(module) for module in model.head.layers.modules() if not list(module.children())]
    assert layers == [torch.nn.Linear, torch.nn.Hardswish, torch.nn.Dropout, torch.nn.Linear]
    assert model.head.layers[0].dropout.p == 0.3
    model.init_weights()
    weight = model.backbone.final_conv[0].conv.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (960 + 128)), rel=0.02)


@pytest.mark.parametrize('split', ['train', 'test'])
def test_cifar_images_are_enlarged(split):
    config, _ = classifier(IN1K.with_name('hadaptive-s_1xb64-200e_cifar100.py'))
    pipeline = Compose(config[f'{split}_dataloader'].dataset.pipeline)
    packed = pipeline(dict(img=np.zeros((32, 32, 3), np.uint8), gt_label=3))
    assert packed['inputs'].shape == (3, 224, 224)
    assert packed['data_samples'].gt_label.item() == 3


def test_two_epochs(trained):
    work, output = trained
    losses = re.findall(r'Epoch\(train\) \[2\]\[\d/2\].* loss: ([\d.]+)', output)
    assert len(losses) == 2
    assert 'accuracy/top1' in output
    checkpoint = torch.load(work / 'run/epoch_2.pth', weights_only=False)
    state = checkpoint['state_dict']
    raw = {key.removeprefix('module.'): v for key, v in checkpoint['ema_state_dict'].items()}
    # The averaged weights are what is saved under the usual name.
    assert not torch.equal(state['head.layers.1.fc.weight'], raw['head.layers.1.fc.weight'])


def test_validation_by_the_test_script(trained, run_warm):
    work, _ = trained
    output = run_warm(ROOT / 'tools/test.py', IN1K, 'run/epoch_2.pth', *TWO_EPOCHS, cwd=work)
    assert re.search(r'Epoch\(test\) \[1/1\] accuracy/top1', output)


def test_mim(trained, run):
    if next(metadata.Distribution.discover(name='mmdet'), None) is None:
        pytest.skip('OpenMIM knows the official stack only: run without STACK=onedl')
    work, _ = trained
    output = run(
        '-m', 'mim', 'train', 'mmpretrain', IN1K, '--gpus', 0, '--work-dir', 'mim',
        *TWO_EPOCHS, 'train_dataloader.dataset.indices=4', cwd=work,
    )  # fmt: skip
    assert 'Epoch(train) [2][1/1]' in output


def test_a_detector_starts_from_the_checkpoint(trained):
    work, _ = trained
    file = work / 'run/epoch_2.pth'
    state = torch.load(file, weights_only=False)['state_dict']
    config = Config.fromfile(SSDLITE)
    config.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(file), prefix='backbone.'
    )
    init_default_scope('mmdet')
    detector = MODELS.build(config.model)
    detector.init_weights()
    given = {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}
    arrived = detector.backbone.state_dict()
    left_out = given.keys() - arrived.keys()
    assert left_out
    assert all(name.startswith('final_conv.') for name in left_out)
    for name, value in arrived.items():
        assert torch.equal(value, given[name]), name


@pytest.fixture(scope='module')
def classifiers(tmp_path_factory):
    """For each architecture a classifier and its checkpoint."""
    folder = tmp_path_factory.mktemp('classifiers')
    made = {}
    for arch in ARCHITECTURES:
        config = Config.fromfile(IN1K.with_name(f'hadaptive-{arch[0]}_8xb128-300e_in1k.py'))
        config.model.backbone.arch = arch
        init_default_scope(config.default_scope)
        model = MODELS.build(config.model)
        for name, buffer in model.named_buffers():
            if name.endswith('running_var'):
                buffer.uniform_(0.1, 1)
        torch.save(dict(state_dict=model.state_dict()), folder / arch)
        made[arch] = model.eval().backbone, folder / arch
    return made


@pytest.mark.parametrize('path', DETECTORS, ids=lambda path: path.stem)
def test_the_documented_command_starts_every_detector(path, classifiers):
    backbone = Config.fromfile(path).model.backbone
    page = (ROOT / 'docs/coco.md').read_text()
    options = re.findall(r'model\.backbone\.init_cfg\.\w+=\S+', page)
    assert len(options) == 3
    expected, file = classifiers[backbone.arch]
    words = [re.sub(r'(checkpoint=).+', rf'\g<1>{file}', option) for option in options]
    detectors, option = re.search(r'(SSDLite and YOLOX) also need\s+`(\S+)`', page).groups()
    if path.parent.name in detectors.lower().split():
        words.append(option)
    init_default_scope('mmdet')
    net = MODELS.build(merged(path, words).model.backbone)
    net.init_weights()
    given = expected.state_dict()
    # Without ach_cfg these are all; an ablation may have no such parameter.
    shared = [name for name in net.state_dict() if name in given]
    assert len(shared) >= 0.9 * len(net.state_dict())
    for name in shared:
        assert torch.equal(net.state_dict()[name], given[name]), name
    if 'ach_cfg' not in backbone:
        image = torch.randn(1, 3, 64, 64)
        expected.out_indices = net.out_indices
        with torch.no_grad():
            for ours, theirs in zip(net.eval()(image), expected(image), strict=True):
                assert torch.equal(ours, theirs)
