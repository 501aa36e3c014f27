import copy
from functools import partial

import pytest
import torch
from tiny_search import SPACE
from torch.nn import functional as F  # noqa: N812

from mmdet_hadaptive.export import fuse_for_inference
from mmdet_hadaptive.layers import AdaptiveCrossHadamard
from mmdet_hadaptive.models import PUBLISHED_ARCHITECTURES, HadaptiveNet
from research.search import SEARCH_SPACES, HadaptiveSearchNet
from research.search.search_net import Choice
from research.search.search_spaces import candidates_of, choose_blocks

# The first of all networks of the space, and others: with nothing in the last choice, too.
DRAWS = [(0, 0, 0), (1, 1, 2), (1, 2, 1), (0, 3, 1)]


def tiny(**kwargs):
    return HadaptiveSearchNet(SPACE, **{'out_indices': (1, 2, 3), **kwargs})


def prefer(net, indices):
    """Makes a network certain to be drawn."""
    with torch.no_grad():
        net.logits.zero_()
        for row, index in zip(net.logits, indices, strict=True):
            row[index] = 1e4


def single(net, indices):
    """The plain network, with the weights of the drawn candidates."""
    plain = HadaptiveNet(
        net.table(indices), out_indices=net.out_indices, with_cp=net.stem.with_cp
    ).train(net.training)
    pending = list(indices)
    for name in net._names:
        blocks = []
        for block in getattr(net, name):
            if isinstance(block, Choice):
                block = block[pending.pop(0)]
            if not isinstance(block, torch.nn.Identity):
                blocks.append(block)
        for mine, theirs in zip(getattr(plain, name), blocks, strict=True):
            mine.load_state_dict(theirs.state_dict())
    return plain


def drawn_parameters(net):
    return [p for p in net.parameters() if p.grad is not None]


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('indices', DRAWS)
def test_the_drawn_network_is_the_plain_one(indices, with_cp, training):
    net = tiny(with_cp=with_cp)
    net.init_weights()
    prefer(net, indices)
    net.train(training)
    plain = single(net, indices)
    image = torch.randn(2, 3, 40, 32)
    results = []
    for network in (plain, net):
        torch.manual_seed(1)
        # With the factors of the drawn candidates, which are 1.
        if network is net:
            net.logits.requires_grad_(True)
        outputs = network(image)
        sum(y.square().mean() for y in outputs).backward()
        results.append((outputs, [p.grad for p in drawn_parameters(network)]))
    assert tuple(net.drawn) == indices
    for expected, actual in zip(*results, strict=True):
        assert len(expected) == len(actual) > 0
        for a, b in zip(expected, actual, strict=True):
            assert torch.allclose(a, b, rtol=0, atol=1e-6)
    # Running statistics and temperatures too.
    for name, value in single(net, indices).state_dict().items():
        assert torch.allclose(value, plain.state_dict()[name], atol=1e-6), name


@torch.no_grad()
def test_odd_and_even_kernels_give_maps_of_one_size():
    shapes = set()
    for indices in DRAWS:
        net = tiny().eval()
        prefer(net, indices)
        shapes.add(tuple(y.shape for y in net(torch.zeros(1, 3, 37, 51))))
    assert len(shapes) == 1


def test_only_what_is_drawn_is_computed(monkeypatch):
    net = tiny()
    prefer(net, (0, 0, 1))
    calls = []
    forward = AdaptiveCrossHadamard.forward
    monkeypatch.setattr(
        AdaptiveCrossHadamard, 'forward', lambda *args: calls.append(1) or forward(*args)
    )
    net(torch.randn(2, 3, 32, 32))
    assert not calls
    prefer(net, (0, 2, 0))
    net(torch.randn(2, 3, 32, 32))
    assert len(calls) == 2


def test_the_gradient_of_the_architecture_parameters():
    net = tiny(out_indices=(2,))
    net.temperature = 1.7
    net.draw_seed = 11
    with torch.no_grad():
        net.logits.copy_(torch.randn(net.logits.shape))
    net.logits.requires_grad_(True)
    image = torch.randn(2, 3, 32, 32)
    torch.manual_seed(2)
    with torch.device('meta'):
        net(image)[0].square().mean().backward()
    actual, drawn = net.logits.grad, net.drawn

    # Slowly: the softmax of each choice by itself, as GDAS writes it.
    generator = torch.Generator().manual_seed(11)
    noise = -torch.empty(net.logits.shape).exponential_(generator=generator).log()
    rows, weights = [], []
    for row, extra, candidates in zip(net.logits.detach(), noise, net.candidates, strict=True):
        row = row[: len(candidates)].clone().requires_grad_(True)
        soft = ((row.log_softmax(0) + extra[: len(candidates)]) / 1.7).softmax(0)
        hard = F.one_hot(soft.argmax(), len(candidates)).float()
        rows.append(row)
        weights.append(hard + soft - soft.detach())
    torch.manual_seed(2)
    x, pending = image, list(zip(weights, drawn, strict=True))
    for _, modules in net.places():
        if len(modules) == 1:
            x = modules[0](x)
        else:
            weight, index = pending.pop(0)
            assert weight.argmax() == index
            x = weight[index] * modules[index](x)
    x.square().mean().backward()
    for expected, found in zip(rows, actual, strict=True):
        assert torch.allclose(expected.grad, found[: len(expected)], rtol=1e-3, atol=1e-6)
        assert not found[len(expected) :].any()
    assert actual.abs().max() > 1e-3


def test_draws_follow_from_their_seed_alone():
    first, second = tiny(), tiny()
    draws = {}
    for seed in range(200):
        for net in (first, second):
            torch.manual_seed(seed if net is first else 0)
            net.draw_seed = seed
            draws[seed, net is first] = net._draw()[0]
    assert all(draws[seed, True] == draws[seed, False] for seed in range(200))
    # All candidates, about equally often.
    for choice, candidates in enumerate(first.candidates):
        counts = torch.bincount(torch.tensor([draws[s, True][choice] for s in range(200)]))
        assert len(counts) == len(candidates)
        assert counts.min() > 0.6 * 200 / len(candidates)


def test_a_second_draw_is_another():
    net = tiny()
    assert len({tuple(net._draw()[0]) for _ in range(20)}) > 5


def test_copies_and_weights_of_a_search(tmp_path):
    net = tiny()
    net.logits.requires_grad_(True)
    net(torch.randn(2, 3, 32, 32))[0].mean().backward()
    net.logits.requires_grad_(False)
    net.logits.add_(1)
    copied = copy.deepcopy(net)
    torch.save(net.state_dict(), tmp_path / 'search.pth')
    other = tiny(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'search.pth')))
    other.init_weights()
    for name, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
        assert torch.equal(value, copied.state_dict()[name]), name
    assert 'logits' not in dict(net.named_parameters())


def test_weights_of_a_single_network_are_refused(tmp_path):
    plain = HadaptiveNet(choose_blocks(SPACE, (0, 0, 0)), out_indices=(2,))
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    net = tiny(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'plain.pth')))
    with pytest.raises(ValueError, match=r'no architecture parameters.*of a single network'):
        net.init_weights()


@pytest.mark.parametrize('space', SEARCH_SPACES)
@pytest.mark.parametrize('training', [True, False])
def test_spaces(space, training):
    net = HadaptiveSearchNet(space, out_indices=(1, 2, 3, 4)).train(training)
    assert net.out_channels == (32, 64, 96, 128)
    assert net.out_strides == (4, 8, 16, 32)
    with torch.no_grad():
        outputs = net(torch.randn(2, 3, 64, 95))
    assert [y.shape[1:] for y in outputs] == [
        (c, 64 // s, 95 // s) for c, s in zip(net.out_channels, net.out_strides, strict=True)
    ]


def test_the_authors_space():
    space = SEARCH_SPACES['small']
    sizes = [
        [len(candidates_of(block)) for block in stage if 'choices' in block]
        for stage in space['stages']
    ]
    assert sizes == [[2], [2], [4, 3], [4, 3, 3, 3, 3, 3], [4, 3, 3, 3, 3]]

    # The published network is in it, with nothing in the last two places.
    for published, stage in zip(
        PUBLISHED_ARCHITECTURES['small']['stages'], space['stages'], strict=True
    ):
        blocks = [*published, *[None] * (len(stage) - len(published))]
        for block, place in zip(blocks, stage, strict=True):
            assert block in candidates_of(place)


def altered(stage, place, **change):
    space = copy.deepcopy(SPACE)
    block = space['stages'][stage][place]
    block.get('choices', [block])[-1].update(change)
    return space


def with_choices(stage, place, choices):
    space = copy.deepcopy(SPACE)
    space['stages'][stage][place] = dict(choices=choices)
    return space


GHOST = dict(type='ghost', channels=12, expand=2, kernel=3, stride=1)


@pytest.mark.parametrize(
    ('error', 'message', 'arch'),
    [
        (ValueError, r"search spaces \['small', 'small-wide'\].*got 'medium'", 'medium'),
        (TypeError, r'dict\(stages=', 3),
        (ValueError, r"\['stages'\]\[2\]\[1\] is an empty choice", with_choices(2, 1, [])),
        (ValueError, r"\['stages'\]\[2\]\[1\] is an empty choice", with_choices(2, 1, [None])),
        (
            ValueError,
            r"\['stages'\]\[2\]\[0\] differ in shape.*ghost-x2-k2-s2: 12 and 2.*k5-s2: 16 and 2",
            altered(2, 0, channels=16),
        ),
        (ValueError, r'differ in shape.*k5: 12 and 1', altered(2, 0, stride=1)),
        (
            ValueError,
            r'differ in shape.*ghost-x2-k3: 12 and 1, nothing: 8 and 1',
            with_choices(2, 0, [GHOST, None]),
        ),
        (ValueError, r"type must be one of.*\['stages'\]\[2\]\[1\]", altered(2, 1, type='mlp')),
        (
            ValueError,
            r"nothing may be left of arch\['stages'\]\[3\]",
            dict(SPACE, stages=[*SPACE['stages'], [dict(choices=[GHOST, None])]]),
        ),
        (ValueError, 'nothing to search', choose_blocks(SPACE, (0, 0, 0))),
    ],
)
def test_wrong_spaces(error, message, arch):
    with pytest.raises(error, match=message):
        HadaptiveSearchNet(arch, out_indices=(2,))


@pytest.mark.parametrize('kernel', [1, 2, 3, 5, 7])
@pytest.mark.parametrize('kind', ['conv', 'ghost', 'inverted_residual', 'ach'])
def test_candidates_of_stride_two_are_equal_in_size(kind, kernel):
    extra = dict(
        conv=dict(act=True),
        ghost=dict(expand=2),
        inverted_residual=dict(width=8),
        ach=dict(num_selected=2, product_norm='DySoft'),
    )
    block = dict(type=kind, channels=4, kernel=kernel, stride=2, **extra[kind])
    other = dict(type='conv', channels=4, kernel=2, stride=2, act=True)
    space = dict(stages=[[dict(choices=[block, other])]], final_channels=4)
    net = HadaptiveSearchNet(space, out_indices=(0,)).eval()
    first = net.stem[0][0]
    conv = first.conv if kind == 'conv' else first.depthwise.conv
    assert conv.padding == ((kernel - 1) // 2,) * 2
    for choice in (0, 1):
        net.logits.zero_()[0, choice] = 1
        for height in range(2, 9):
            assert net(torch.randn(1, 3, height, 7))[0].shape == (1, 4, height // 2, 3)


def test_what_does_not_fill_the_last_step_is_left_out():
    conv = partial(torch.nn.functional.conv2d, stride=2, padding=1)
    blocks = [dict(type='conv', channels=4, kernel=k, stride=2, act=False) for k in (3, 2)]
    space = dict(stages=[[dict(choices=blocks)]], final_channels=4)
    net = HadaptiveSearchNet(space, out_indices=(0,)).eval()
    image = torch.randn(1, 3, 7, 6)
    first = net.stem[0][0]
    net.logits.zero_()[0, 0] = 1
    expected = first.norm(conv(image[:, :, :6], first.conv.weight))
    assert torch.allclose(net(image)[0], expected, atol=1e-6)


@torch.no_grad()
def test_a_fused_search_net_computes_the_same():
    net = HadaptiveSearchNet('small', out_indices=(2, 3))
    net.init_weights()
    net.logits.uniform_()
    for name, buffer in net.named_buffers():
        if name.endswith(('running_mean', 'running_var')):
            buffer.uniform_(0.5, 1.5)
    net.eval()
    image = torch.randn(1, 3, 64, 64)
    for fused, plain in zip(fuse_for_inference(net, image)(image), net(image), strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)
