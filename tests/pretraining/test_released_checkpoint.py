import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmdet_hadaptive.models import PUBLISHED_ARCHITECTURES, HadaptiveNet
from mmdet_hadaptive.pretraining import convert_released_checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture
def reference():
    folder = os.environ.get('HADAPTIVE_REFERENCE')
    if not folder:
        pytest.skip('set HADAPTIVE_REFERENCE to the folder that holds network_small.pt')
    return Path(folder) / 'network_small.pt'


def released_shapes(arch):
    """The authors' keys and shapes; tests/data/README.md says where they are from."""
    lines = (ROOT / f'tests/data/released/{arch}.txt').read_text().splitlines()
    pairs = [line.split() for line in lines]
    return {key: () if shape == '-' else tuple(map(int, shape.split(','))) for key, shape in pairs}


def released(path, arch, classes=7):
    """A checkpoint as the authors' code writes it, with random weights."""
    state = {}
    for key, shape in released_shapes(arch).items():
        if 'hadamard' in key:
            selected = round((1 + (1 + 8 * shape[0]) ** 0.5) / 2)
            state[key] = torch.triu_indices(selected, selected, 1)['ij'.index(key[-1])]
        elif key.endswith(('tau_adj', 'num_batches_tracked')):
            state[key] = torch.randint(1, 99, shape)
        else:
            state[key] = torch.rand(shape) + 0.1
    count = 1 + max(int(key.split('.')[1]) for key in state)
    for layer, shape in ((0, (1280, 960)), (3, (classes, 1280))):
        state[f'layers.{count}.classifier.{layer}.weight'] = torch.randn(shape)
        state[f'layers.{count}.classifier.{layer}.bias'] = torch.randn(shape[0])
    content = dict(model_state_dict=state, model_desc=arch, epoch=3, best_fitness=0.5)
    torch.save(content, path)
    return content


# One example of each part, read off the paper's tables and the authors' names by hand.
OUR_NAMES = {
    'small': {
        'layers.0.conv.weight': 'stem.0.conv.weight',
        'layers.2.bn.running_var': 'stage1.1.norm.running_var',
        'layers.3.block.0.primary_conv.conv.weight': 'stage2.0.expansion.primary.conv.weight',
        'layers.4.block.0.primary_conv.bn.bias': 'stage2.1.expansion.primary.norm.bias',
        'layers.5.block.0.cheap_operation.conv.weight': 'stage3.0.expansion.cheap.conv.weight',
        'layers.8.block.0.cheap_operation.bn.weight': 'stage3.3.expansion.cheap.norm.weight',
        'layers.6.block.0.fc.bias': 'stage3.1.expansion.pointwise.bias',
        'layers.7.block.0.norm_x.weight': 'stage3.2.expansion.norm.weight',
        'layers.9.block.0.eva_net.conv.weight': 'stage3.4.expansion.scorer.conv.weight',
        'layers.10.block.0.norm.alpha': 'stage3.5.expansion.product_norm.alpha',
        'layers.12.block.0.norm.bias': 'stage4.1.expansion.product_norm.bias',
        'layers.13.block.0.tau': 'stage4.2.expansion.temperature',
        'layers.11.block.1.conv.weight': 'stage4.0.depthwise.conv.weight',
        'layers.12.block.1.bn.running_mean': 'stage4.1.depthwise.norm.running_mean',
        'layers.6.block.2.conv.weight': 'stage3.1.projection.conv.weight',
        'layers.7.block.2.bn.weight': 'stage3.2.projection.norm.weight',
        'layers.14.conv.weight': 'final_conv.0.conv.weight',
    },
    'medium': {
        'layers.7.block.0.norm.running_var': 'stage3.2.expansion.product_norm.running_var',
        'layers.12.block.0.norm.weight': 'stage3.7.expansion.product_norm.weight',
        'layers.15.block.0.tau': 'stage4.1.expansion.temperature',
        'layers.17.bn.bias': 'final_conv.0.norm.bias',
    },
    'large': {
        'layers.15.block.0.norm.alpha': 'stage3.10.expansion.product_norm.alpha',
        'layers.19.block.0.norm.running_mean': 'stage4.2.expansion.product_norm.running_mean',
        'layers.20.block.1.conv.weight': 'stage5.0.depthwise.conv.weight',
        'layers.23.conv.weight': 'final_conv.0.conv.weight',
    },
}


def test_every_tap_of_the_reference(reference, tmp_path, run_warm):
    run_warm(ROOT / 'tools/convert_checkpoint.py', reference, 'small.pth', cwd=tmp_path)
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


@pytest.mark.parametrize('arch', PUBLISHED_ARCHITECTURES)
def test_every_tensor_arrives_under_its_name(tmp_path, arch):
    given = released(tmp_path / 'a.pth', arch)['model_state_dict']
    checkpoint = convert_released_checkpoint(tmp_path / 'a.pth')
    assert checkpoint['meta']['arch'] == arch
    state = checkpoint['state_dict']
    net = HadaptiveNet(arch, out_indices=(len(PUBLISHED_ARCHITECTURES[arch]['stages']),))
    assert state.keys() == net.state_dict().keys()
    for theirs, ours in OUR_NAMES[arch].items():
        assert torch.equal(state[ours], given[theirs].reshape(state[ours].shape)), ours
    norms = [value for name, value in state.items() if name.endswith('last_grad_norm')]
    assert all(norm == -1 for norm in norms)
    # No tensor is left out or taken twice.
    left_out = ('tau_adj', 'hadamard_i', 'hadamard_j')
    taken = [
        value
        for key, value in given.items()
        if 'classifier' not in key and not key.endswith(left_out)
    ]
    assert len(taken) + len(norms) == len(state)
    assert sum(v.double().sum() for v in taken).item() == pytest.approx(
        sum(v.double().sum() for v in state.values()).item() + len(norms)
    )


def test_the_list_of_keys_is_that_of_the_reference(reference):
    state = torch.load(reference, weights_only=True)['model_state_dict']
    assert {key: tuple(value.shape) for key, value in state.items()} == released_shapes('small')


def test_with_head(tmp_path, run):
    content = released(tmp_path / 'a.pth', 'small')
    tool = ROOT / 'tools/convert_checkpoint.py'
    output = run(tool, 'a.pth', 'b.pth', '--with-head', cwd=tmp_path)
    assert "prefix='backbone.'" in output
    # The released file is not replaced, and what cannot be written is named.
    before = (tmp_path / 'a.pth').read_bytes()
    assert 'a.pth exists already: name another' in run(tool, 'a.pth', 'a.pth', cwd=tmp_path, code=2)
    assert (tmp_path / 'a.pth').read_bytes() == before
    output = run(tool, 'a.pth', 'b.pth/c.pth', cwd=tmp_path, code=1)
    assert output.startswith('error: ')
    assert len(output.splitlines()) == 1
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


@pytest.mark.parametrize('arch', PUBLISHED_ARCHITECTURES)
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


def transposed(content):
    weight = content['model_state_dict']['layers.2.conv.weight']
    content['model_state_dict']['layers.2.conv.weight'] = weight.transpose(0, 1).contiguous()


def not_finite(content, value='nan'):
    content['model_state_dict']['layers.2.conv.weight'][0, 0] = float(value)


def number(content):
    content['model_state_dict']['layers.2.conv.weight'] = 1.0


def scalar(content):
    content['model_state_dict']['layers.2.conv.weight'] = torch.tensor(1.0)


def other_head(content):
    content['model_state_dict']['layers.15.classifier.3.weight'] = torch.zeros(7, 99)


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
        (transposed, r'layers\.2\.conv\.weight has the shape \(48, 32, 1, 1\)|have \[32, 48, 48\]'),
        (not_finite, r"1 tensors are not finite \['layers\.2\.conv\.weight'\]"),
        (lambda c: not_finite(c, '-inf'), r"1 tensors are not finite \['layers\.2\.conv"),
        (number, r'model_state_dict is not a dict of tensors'),
        (scalar, r'first layers have \[32, 48, 0\] channels'),
        (other_head, r'linear layer 1 of the classifier has the shape \(7, 99\).*\(7, 1280\)'),
        (other_width, r'first layers have \[7, 48, 32\] channels'),
        (other_pairs, r'layers\.6\.block\.0\.hadamard_i orders the products differently'),
    ],
)
def test_wrong_or_incomplete_files_are_refused(tmp_path, change, message):
    content = released(tmp_path / 'a.pth', 'small')
    change(content)
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=message):
        convert_released_checkpoint(tmp_path / 'a.pth', with_head=True)


def test_files_that_are_no_plain_weights_are_refused(tmp_path, run_warm):
    tool = ROOT / 'tools/convert_checkpoint.py'
    content = released(tmp_path / 'whole.pth', 'small')
    whole = (tmp_path / 'whole.pth').read_bytes()
    place = whole.index(content['model_state_dict']['layers.0.conv.weight'].numpy().tobytes())
    damages = (
        b'not a checkpoint',
        whole[: len(whole) // 2],
        whole[:place] + b'????' + whole[place + 4 :],
    )
    for damaged in damages:
        (tmp_path / 'a.pth').write_bytes(damaged)
        with pytest.raises(ValueError, match=r'a\.pth cannot be read as plain weights'):
            convert_released_checkpoint(tmp_path / 'a.pth')
    output = run_warm(tool, 'a.pth', 'b.pth', cwd=tmp_path, code=1)
    assert output.startswith('error: a.pth cannot be read as plain weights: ')
    assert len(output.splitlines()) == 1
    assert not (tmp_path / 'b.pth').exists()
