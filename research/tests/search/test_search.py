import copy
import json
import math
from collections import Counter
from functools import partial
from itertools import pairwise

import pytest
import tiny_search
import torch
from mmengine.config import Config
from mmengine.dataset import RepeatDataset
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from tiny_search import NumberedImages, build_runner, write_configs

from mmdet_hadaptive.models import HadaptiveNet
from mmdet_hadaptive.utils.costs import count_costs
from research.search import (
    CostTable,
    HadaptiveSearchNet,
    HalfSampler,
    count_candidates,
    draw_network,
    find_most_probable,
    time_candidates,
)
from research.search.loop import find_sampler
from research.search.result import find_base


@pytest.fixture
def config(tmp_path):
    return Config.fromfile(write_configs(tmp_path))


@pytest.fixture
def build(config, tmp_path):
    """Builds the tiny search's runner; keyword arguments are those of the search's hook."""

    def build_with(name='run', hooks=(), **options):
        changed = copy.deepcopy(config)
        for key, value in options.items():
            # Replaced, not merged.
            changed.custom_hooks[-1].pop(key, None)
            changed.custom_hooks[-1][key] = value
        return build_runner(
            changed,
            tmp_path / name,
            hooks,
            experiment_name=f'{tmp_path.name}_{name}_{len(MessageHub._instance_dict)}',
        )

    return build_with


class Observer(Hook):
    """Calls a function before or after an update of the architecture parameters."""

    def __init__(self, function, priority='LOW'):
        self.function = function
        self.priority = priority

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.function(runner)


def state_of(runner):
    model = copy.deepcopy(runner.model.state_dict())
    return model.pop('backbone.logits'), model


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def hook_of(runner):
    return next(h for h in runner.hooks if type(h).__name__ == 'ArchitectureSearchHook')


class Killed(BaseException):
    pass


def test_a_killed_search_ends_as_if_it_had_not_been(build, tmp_path):
    build('whole').train()

    def kill(runner):
        if runner.iter == 7:
            raise Killed

    with pytest.raises(Killed):
        build('killed', hooks=[Observer(kill)]).train()
    assert [path.name for path in (tmp_path / 'killed').glob('*_[23].pth')] == ['epoch_2.pth']
    iterations = []
    resumed = build('killed', hooks=[Observer(lambda runner: iterations.append(runner.iter))])
    resumed._resume = True
    resumed.train()
    assert iterations == [6, 7, 8, 9, 10, 11]
    first, second = (
        torch.load(tmp_path / name / 'epoch_4.pth', weights_only=True)
        for name in ('whole', 'killed')
    )
    for part in ('state_dict', 'ema_state_dict'):
        assert_same(first[part], second[part])
    searches = [checkpoint['architecture_search'] for checkpoint in (first, second)]
    assert searches[0]['history'] == searches[1]['history']
    assert len(searches[0]['history']) == 4
    for a, b in zip(*(s['optimizer']['state'][0].values() for s in searches), strict=True):
        assert torch.equal(a, b)
    for name in ('architecture.py', 'architecture.json', 'costs.json'):
        texts = [(tmp_path / run / 'search' / name).read_text() for run in ('whole', 'killed')]
        assert texts[0] == texts[1]
    assert (tmp_path / 'killed/search/choices.png').stat().st_size > 10_000


def test_the_other_half_starts_again_if_it_is_shorter(build):
    """Where images are repeated, as often as their classes are rare."""

    class Shorten(Hook):
        def before_train(self, runner):
            places = find_sampler(runner.train_loop.architecture_dataloader)._places
            places.dataset = range(2)
            places.num_samples = places.total_size = 2

    runner = build(hooks=[Shorten()])
    runner.train()
    assert len(runner.train_loop.architecture_dataloader) < len(runner.train_dataloader)
    assert len(hook_of(runner).history) == 4


def test_updates_take_turns(build):
    """Each on its own half of the images, and of its own parameters alone."""
    states, halves, temperatures = [], [], []

    def note(runner):
        temperatures.append(runner.model.backbone.temperature)
        states.append(state_of(runner))
        read = runner.train_dataloader.dataset.read
        halves.append(set(read))
        read.clear()
        assert runner.model.backbone.logits.grad is None
        assert not runner.model.backbone.logits.requires_grad

    # With num_workers=0 the other half's data set is this process's, too.
    runner = build(hooks=[Observer(note, 'HIGH'), Observer(note, 'BELOW_NORMAL')])
    loader_of_half = []

    class Start(Hook):
        def before_train(self, runner):
            other = runner.train_loop.architecture_dataloader.dataset
            other.read = runner.train_dataloader.dataset.read
            loaders = (runner.train_dataloader, runner.train_loop.architecture_dataloader)
            loader_of_half.append([set(loader.sampler.indices) for loader in loaders])

    runner.register_hook(Start())
    runner.train()
    weights, architecture = loader_of_half[0]
    assert weights | architecture == set(range(13))
    assert not weights & architecture
    assert len(states) == 2 * 3 * 4
    for number, (before, after) in enumerate(pairwise(states)):
        names = [n for n, v in before[1].items() if not torch.equal(v, after[1][n])]
        if number % 2 == 0:
            assert names == []
            assert not torch.equal(before[0], after[0])
            assert len(halves[number + 1]) == 2
            assert halves[number + 1] <= architecture
            assert halves[number] <= weights
        else:
            assert any('running_mean' in name for name in names)
            assert any('weight' in name for name in names)
            assert torch.equal(before[0], after[0])
    # In another order in each epoch, and with other random numbers of the workers.
    orders = [[tuple(sorted(half)) for half in halves[1::2][n : n + 3]] for n in (0, 3, 6, 9)]
    assert len(set(map(tuple, orders))) == 4
    assert runner.train_loop.architecture_dataloader.worker_init_fn is None
    # From the first to the last epoch, along a cosine.
    expected = [0.1 + 3.9 * (1 + math.cos(math.pi * epoch / 3)) / 2 for epoch in range(4)]
    assert expected[0] == pytest.approx(4.0)
    assert expected[3] == pytest.approx(0.1)
    assert temperatures == pytest.approx([value for value in expected for _ in range(6)])


@pytest.fixture
def prepared(build):
    """A search that is ready for its first iteration."""
    runner = build()
    runner.train_loop  # noqa: B018
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    hook = hook_of(runner)
    runner.model.train()
    runner.call_hook('before_train')
    hook.before_train_epoch(runner)
    hook.before_train_iter(runner, 0)
    return runner, hook


def test_the_penalty_has_the_gradient_of_the_expected_cost(prepared):
    runner, hook = prepared
    logits = hook.net.logits
    with torch.no_grad():
        logits.copy_(torch.randn(logits.shape))
    batch = next(hook._batches)
    gradients = []
    for hook.cost_weight in (0.0, 1.0):
        torch.manual_seed(0)
        hook.net.draw_seed = 5
        gradients.append(hook.compute_gradient(runner.model, batch)[2])
    penalty = gradients[1] - gradients[0]

    # Slowly: the cost of all networks of the space, each by its probability.
    rows = [
        r[: len(c)].clone().requires_grad_(True)
        for r, c in zip(logits, hook.net.candidates, strict=True)
    ]
    mean = 0
    for a in range(2):
        for b in range(4):
            for c in range(3):
                probability = rows[0].softmax(0)[a] * rows[1].softmax(0)[b] * rows[2].softmax(0)[c]
                net = HadaptiveNet(hook.net.table((a, b, c)), out_indices=(2,))
                mean = mean + probability * count_costs(net, 32, 32).macs
    (mean / 80e3 - 1).abs().backward()
    assert penalty.abs().max() > 1e-3
    for row, found in zip(rows, penalty, strict=True):
        assert torch.allclose(row.grad, found[: len(row)], atol=1e-5)


def test_the_score_function_compares_two_draws(prepared):
    runner, hook = prepared
    hook.estimator, hook.cost_weight = 'score-function', 0.0
    net, batch = hook.net, next(hook._batches)
    net.draw_seed = 8
    torch.manual_seed(0)
    loss, _, gradient = hook.compute_gradient(runner.model, batch)
    expected = torch.zeros_like(gradient)
    losses, drawn = [], []
    net.draw_seed = 8
    torch.manual_seed(0)
    for _ in range(2):
        losses.append(runner.model(**batch, mode='loss')['loss'].item())
        drawn.append(net.drawn)
    assert loss.item() == pytest.approx(sum(losses) / 2)
    # The gradient of log p: one minus p where it was drawn, minus p elsewhere, with equal p.
    for indices, difference in zip(
        drawn, (losses[0] - losses[1], losses[1] - losses[0]), strict=True
    ):
        for choice, (index, candidates) in enumerate(zip(indices, net.candidates, strict=True)):
            for candidate in range(len(candidates)):
                score = (candidate == index) - 1 / len(candidates)
                expected[choice, candidate] += difference / 2 * score
    assert drawn[0] != drawn[1]
    assert torch.allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize('target', [65e3, 110e3])
def test_what_is_found_costs_what_was_asked_for(build, tmp_path, target):
    runner = build(target=dict(macs=target))
    runner.train()
    result = json.loads((tmp_path / 'run/search/architecture.json').read_text())
    found = Config.fromfile(tmp_path / 'run/search/architecture.py')
    assert found.model.backbone.arch.to_dict() == result['table']
    backbone = found.model.backbone.to_dict()
    assert backbone.pop('type') == 'HadaptiveNet'
    assert backbone.pop('with_cp') is True
    macs = count_costs(HadaptiveNet(**backbone), 32, 32).macs
    assert macs == result['cost'] == pytest.approx(target, rel=0.05)
    assert found.train_cfg.type == 'EpochBasedTrainLoop'
    assert [h.type for h in found.custom_hooks][-1] == 'EMAHook'
    taken = [choice['candidates'][choice['taken']] for choice in result['choices']]
    blocks = [dict(block) for stage in result['table']['stages'] for block in stage]
    assert all(block is None or block in blocks for block in taken)
    for choice, probabilities in zip(
        result['choices'], result['history'][-1]['probabilities'], strict=True
    ):
        assert choice['probabilities'] == probabilities
        assert sum(probabilities) == pytest.approx(1)


def test_the_penalty_leads_to_the_target(build):
    runner = build(target=dict(macs=70e3), cost_weight=100.0, lr=0.3)
    hook = hook_of(runner)
    runner.train()
    start = hook.costs.expected(torch.tensor([[0.5, 0.5, 0, 0], [0.25] * 4, [1 / 3] * 3 + [0]]))
    assert start > 1.2 * 70e3
    assert hook.history[-1]['expected_cost'] == pytest.approx(1, abs=0.1)


def brute_force(costs, logs, target):
    options = [range(len(row)) for row in costs.candidates]
    best, found = -math.inf, None
    for indices in torch.cartesian_prod(*(torch.tensor(o) for o in options)).tolist():
        if abs(costs.total(indices) / target - 1) <= 0.05:
            value = sum(logs[c, i].item() for c, i in enumerate(indices))
            if value > best:
                best, found = value, indices
    return best, found


@pytest.mark.parametrize('seed', range(10))
def test_the_most_probable_network_of_a_cost(seed):
    generator = torch.Generator().manual_seed(seed)
    random = partial(torch.rand, generator=generator)
    costs = CostTable('macs', 3.0, [(10 * random(3)).tolist() for _ in range(5)])
    logs = (4 * random(5, 3)).log_softmax(1)
    for target in torch.linspace(1, 70, 12).tolist():
        best, found = brute_force(costs, logs, target)
        indices = find_most_probable(costs, logs, target)
        assert (indices is None) == (found is None)
        if found:
            assert abs(costs.total(indices) / target - 1) <= 0.05
            assert sum(logs[c, i].item() for c, i in enumerate(indices)) >= best - 0.05


def test_random_networks_of_a_cost():
    costs = CostTable('macs', 1.0, [[1.0, 2.0, 3.0]] * 3)
    drawn = [draw_network(costs, 6.0, seed) for seed in range(700)]
    counts = Counter(map(tuple, drawn))
    # The ways in which three choices add up to 5: 1, 1, 3 and 1, 2, 2 in any order.
    assert len(counts) == 6
    assert {costs.total(indices) for indices in counts} == {6.0}
    assert min(counts.values()) > 80
    with pytest.raises(ValueError, match=r'none costs 20; all do \(4\.0, 10\.0\)'):
        draw_network(costs, 20.0, 0)


def test_the_most_probable_candidates_are_taken_where_they_fit():
    costs = CostTable('macs', 0.0, [[100.0, 100.04], [50.0, 50.03]])
    logs = torch.tensor([[0.2, 0.8], [0.3, 0.7]]).log()
    assert find_most_probable(costs, logs, 150.0) == [1, 1]


def test_a_network_that_fits_is_not_displaced_by_a_more_probable_one():
    # 94.98 is outside of the 5 %, and more probable than its neighbour 95.02, which fits.
    costs = CostTable('macs', 0.0, [[94.98, 95.02]])
    logs = torch.tensor([[0.9, 0.1]]).log()
    assert find_most_probable(costs, logs, 100.0) == [1]


def test_costs_of_candidates():
    net = HadaptiveSearchNet('small', out_indices=(3, 4))
    before = copy.deepcopy(net.state_dict())
    costs = count_candidates(net, 96, 64)
    for seed in range(3):
        net.draw_seed = seed
        indices, _ = net._draw()
        plain = HadaptiveNet(net.table(indices), out_indices=(3, 4))
        assert costs.total(indices) == count_costs(plain, 96, 64).macs
    least, most = costs.limits
    assert least < costs.total(indices) < most
    assert_same(before, net.state_dict())
    published = count_costs(HadaptiveNet('small', out_indices=(3, 4)), 96, 64).macs
    assert find_most_probable(costs, torch.zeros(net.logits.shape), published) is not None


def test_times_of_candidates(monkeypatch):
    monkeypatch.setattr('research.search.costs._ROUNDS', 3)
    net = HadaptiveSearchNet(tiny_search.SPACE, out_indices=(2,))
    costs = time_candidates(net, 64, 64)
    assert costs.quantity == 'latency_ms'
    assert [len(row) for row in costs.candidates] == [2, 4, 3]
    # Nothing takes no time, and all else takes some.
    assert costs.candidates[2].pop(1) == 0
    assert all(time > 0 for row in costs.candidates for time in row)
    assert costs.fixed > 0


def test_measured_costs_can_be_read(build, tmp_path):
    costs = CostTable('latency_ms', 1.0, [[1.0, 2.0], [1.0, 2.0, 3.0, 4.0], [1.0, 0.0, 2.0]])
    (tmp_path / 'measured.json').write_text(costs.to_json())
    given = dict(latency_ms=5, costs=str(tmp_path / 'measured.json'))
    build('first', target=given).train()
    result = json.loads((tmp_path / 'first/search/architecture.json').read_text())
    assert result['quantity'] == 'latency_ms'
    assert result['cost'] == pytest.approx(5, rel=0.05)
    assert (tmp_path / 'first/search/costs.json').read_text() == costs.to_json()
    with pytest.raises(ValueError, match=r'measured\.json has no macs of the candidates'):
        build('second', target=dict(macs=5, costs=given['costs'])).train()


@pytest.mark.parametrize('count', [2, 7, 12])
def test_halves(count):
    images = NumberedImages(count)
    repeated = RepeatDataset.__new__(RepeatDataset)
    repeated.dataset, repeated.times, repeated._ori_len = images, 3, count
    for dataset, times in ((images, 1), (repeated, 3)):
        halves = [HalfSampler(dataset, half=half, split_seed=4, seed=0) for half in (0, 1)]
        first, second = ([i % count for i in half.indices] for half in halves)
        assert sorted({*first, *second}) == list(range(count))
        assert not set(first) & set(second)
        assert (len(first), len(second)) == (count // 2 * times, -(-count // 2) * times)
        for half in halves:
            assert sorted(half) == half.indices
            assert len(half) == len(half.indices)
    again = HalfSampler(images, half=0, split_seed=4, seed=9)
    other = [HalfSampler(images, half=0, split_seed=seed, seed=0).indices for seed in range(20)]
    assert again.indices == other[4]
    assert len(set(map(tuple, other))) > 1
    with torch.device('meta'):
        assert HalfSampler(images, half=0, split_seed=4, seed=9).indices == again.indices
    if count > 7:
        orders = []
        for epoch in range(2):
            again.set_epoch(epoch)
            orders.append(list(again))
        assert orders[0] != orders[1]


HOOK = f'custom_hooks.{len(Config.fromstring(tiny_search.BASE, ".py").custom_hooks)}'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'train_dataloader.dataset.count': 1}, r'two halves of the training set.* 1 image'),
        (
            {'train_dataloader.dataset.count': 3},
            r'too small for a search: half of it, 1 image\(s\), makes no batch of 2 for each of 1',
        ),
        (
            {'train_dataloader.sampler.type': 'InfiniteSampler'},
            r"train_dataloader\.sampler\.type='DefaultSampler', got .*Infinite",
        ),
        (
            {'model.backbone.type': 'HadaptiveNet', 'model.backbone.arch': 'small'},
            "type='HadaptiveSearchNet', got HadaptiveNet",
        ),
        ({'train_cfg.type': 'EpochBasedTrainLoop'}, "train_cfg.type='ArchitectureSearchLoop'"),
        (
            {f'{HOOK}.target.macs': 1e6},
            r'no network of the space costs macs=1e\+06 up to 5 %: they reach from \d+ to \d+',
        ),
        ({f'{HOOK}.target.macs': 1e3}, 'no network of the space costs macs=1000 up to'),
        ({f'{HOOK}.target.macs': -1}, 'macs of target must be above 0, got -1'),
        ({f'{HOOK}.target.parameters': 3}, r'must be dict\(macs=\.\.\.\) or'),
        ({f'{HOOK}.target.latency_ms': 3}, r'must be dict\(macs=\.\.\.\) or'),
        ({f'{HOOK}.estimator': 'soft'}, "estimator must be 'straight-through' or"),
    ],
)
def test_wrong_searches_do_not_start(config, tmp_path, change, message):
    config.merge_from_dict(change)
    started = []
    observer = Observer(lambda runner: started.append(runner.iter))
    with pytest.raises(ValueError, match=message):
        build_runner(config, tmp_path / 'run', [observer]).train()
    assert not started


def test_losses_that_are_no_numbers(prepared):
    runner, hook = prepared
    runner.model.scale.data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r'not finite in iteration 1: resume with'):
        hook.after_train_iter(runner, 0)
    assert hook.net.logits.isfinite().all()


def test_a_search_needs_a_base(build, config, tmp_path):
    (tmp_path / 'alone.py').write_text(config.pretty_text)
    with pytest.raises(ValueError, match=r'alone\.py inherits no training config \(_base_\)'):
        build_runner(Config.fromfile(tmp_path / 'alone.py'), tmp_path / 'run').train()


def test_a_base_that_is_computed(tmp_path):
    (tmp_path / 'search.py').write_text("_base_ = __import__('mmdet_hadaptive') and 'a.py'")
    with pytest.raises(ValueError, match=r'search\.py is computed.*: write the path or name'):
        find_base(tmp_path / 'search.py')


def test_another_data_set_is_not_resumed(build, config):
    config.train_cfg.max_epochs = 1
    build().train()
    config.train_dataloader.dataset.count = 11
    config.train_cfg.max_epochs = 2
    runner = build()
    runner._resume = True
    with pytest.raises(ValueError, match='halves of the training set are not those'):
        runner.train()
