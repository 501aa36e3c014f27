import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmdet_hadaptive.backbones import ARCHITECTURES, HadaptiveNet
from mmdet_hadaptive.layers import AdaptiveCrossHadamard
from mmdet_hadaptive.pretraining import _released_names, convert_released_checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture
def reference():
    folder = os.environ.get('HADAPTIVE_REFERENCE')
    if not folder:
        pytest.skip('set HADAPTIVE_REFERENCE to the folder that holds network_small.pt')
    return Path(folder) / 'network_small.pt'


def last(arch):
    return len(ARCHITECTURES[arch]['stages'])


def released(path, arch, classes=7):
    """A checkpoint as the authors' code writes it, of a network with random weights."""
    net = HadaptiveNet(arch, out_indices=(last(arch),))
    for i, module in enumerate(net.modules()):
        if isinstance(module, AdaptiveCrossHadamard):
            module.temperature.fill_(1 + i / 1000)
    state, names = {}, _released_names(net)
    for name, value in net.state_dict().items():
        if name in names:
            state[names[name]] = value
        else:
            prefix = names[name.replace('last_grad_norm', 'temperature')]
            state[prefix + '_adj'] = torch.tensor(0)
    count = 1 + max(int(key.split('.')[1]) for key in state)
    for layer, shape in ((0, (1280, 960)), (3, (classes, 1280))):
        state[f'layers.{count}.classifier.{layer}.weight'] = torch.randn(shape)
        state[f'layers.{count}.classifier.{layer}.bias'] = torch.randn(shape[0])
    content = dict(model_state_dict=state, model_desc=arch, epoch=3, best_fitness=0.5)
    torch.save(content, path)
    return net, content


def test_every_tap_of_the_reference(reference, tmp_path, run):
    run(ROOT / 'tools/convert_checkpoint.py', reference, 'small.pth', cwd=tmp_path)
    net = HadaptiveNet(
        'small',
        out_indices=(1, 2, 3, 4, 5),
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'small.pth')),
    )
    net.init_weights()
    net.eval()
    cases = torch.load(reference, weights_only=True)['cases']
    assert len(cases) == 2
    for case in cases.values():
        with torch.no_grad():
            outputs = net(case['x'].float())
        for output, tap in zip(outputs, case['taps'], strict=True):
            assert (output - tap).abs().max() < 1e-4


@pytest.mark.parametrize('arch', ARCHITECTURES)
def test_recognises_the_network_and_carries_temperatures_over(tmp_path, arch):
    net, _ = released(tmp_path / 'a.pth', arch)
    checkpoint = convert_released_checkpoint(tmp_path / 'a.pth')
    assert checkpoint['meta']['arch'] == arch
    state = checkpoint['state_dict']
    assert state.keys() == net.state_dict().keys()
    for name, value in net.state_dict().items():
        expected = torch.tensor(-1.0) if name.endswith('last_grad_norm') else value
        assert torch.equal(state[name], expected), name


def test_with_head(tmp_path, run):
    _, content = released(tmp_path / 'a.pth', 'small')
    tool = ROOT / 'tools/convert_checkpoint.py'
    output = run(tool, 'a.pth', 'b.pth', '--with-head', cwd=tmp_path)
    assert "prefix='backbone.'" in output
    state = torch.load(tmp_path / 'b.pth', weights_only=True)['state_dict']
    assert {key.split('.')[0] for key in state} == {'backbone', 'head'}
    given = content['model_state_dict']
    assert torch.equal(state['head.layers.1.fc.bias'], given['layers.15.classifier.3.bias'])
    net = HadaptiveNet(
        'small',
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'b.pth'), prefix='backbone.'),
    )
    net.init_weights()
    assert torch.equal(net.stem[0].conv.weight, given['layers.0.conv.weight'])


@pytest.mark.parametrize('arch', ARCHITECTURES)
def test_with_head_it_is_the_classifier_of_the_config(tmp_path, arch):
    config = Config.fromfile(ROOT / f'configs/pretrain/hadaptive-{arch[0]}_1xb64-200e_cifar100.py')
    init_default_scope(config.default_scope)
    classifier = MODELS.build(config.model)
    released(tmp_path / 'a.pth', arch, classes=100)
    state = convert_released_checkpoint(tmp_path / 'a.pth', with_head=True)['state_dict']
    classifier.load_state_dict(state, strict=True)


def without(content, key):
    del content['model_state_dict'][key]


def renamed(content):
    content['model_state_dict']['layers.99.conv.weight'] = torch.zeros(1)


def no_state(content):
    content['weights'] = content.pop('model_state_dict')


def no_head(content):
    for key in [key for key in content['model_state_dict'] if 'classifier' in key]:
        without(content, key)


def other_shape(content):
    content['model_state_dict']['layers.14.conv.weight'] = torch.zeros(2, 128, 1, 1)


def other_width(content):
    content['model_state_dict']['layers.0.conv.weight'] = torch.zeros(7, 3, 2, 2)


def other_pairs(content):
    content['model_state_dict']['layers.6.block.0.hadamard_i'] = torch.arange(120)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (no_state, r"no model_state_dict, but \['best_fitness', 'epoch'"),
        (lambda c: without(c, 'layers.0.conv.weight'), r"lacks \['layers\.0\.conv\.weight'\]"),
        (lambda c: without(c, 'layers.6.block.0.tau'), r"1 keys are missing \['layers\.6\..*tau'"),
        (renamed, r"1 are unexpected \['layers\.99\.conv\.weight'\]"),
        (no_head, r'no classifier head: layers\.N\.classifier\.0\.weight is missing'),
        (other_shape, r'layers\.14\.conv\.weight has the shape \(2, 128, 1, 1\)'),
        (other_width, r'first layers have \[7, 48, 32\] channels'),
        (other_pairs, r'layers\.6\.block\.0\.hadamard_i orders the products differently'),
    ],
)
def test_wrong_or_incomplete_files_are_refused(tmp_path, change, message):
    _, content = released(tmp_path / 'a.pth', 'small')
    change(content)
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=message):
        convert_released_checkpoint(tmp_path / 'a.pth', with_head=True)


def test_another_arch_is_refused(tmp_path):
    released(tmp_path / 'a.pth', 'small')
    with pytest.raises(ValueError, match=r'of the small network, not of the medium one'):
        convert_released_checkpoint(tmp_path / 'a.pth', 'medium')
    with pytest.raises(ValueError, match=r"must be one of .* got 'tiny'"):
        convert_released_checkpoint(tmp_path / 'a.pth', 'tiny')


def test_files_that_are_no_plain_weights_are_refused(tmp_path, run):
    (tmp_path / 'a.pth').write_text('not a checkpoint')
    output = run(ROOT / 'tools/convert_checkpoint.py', 'a.pth', 'b.pth', cwd=tmp_path, code=1)
    assert 'error: a.pth cannot be read as plain weights' in output
    assert not (tmp_path / 'b.pth').exists()
