import copy
import math
from contextlib import ExitStack

import pytest
import torch
from torch import nn

from hadaptive_runtime.onnx_session import create_session
from mmdet_hadaptive.export import fuse_for_inference, prune_products
from mmdet_hadaptive.export.product_statistics import (
    collect_product_statistics,
    product_bottlenecks,
)
from mmdet_hadaptive.layers import AdaptiveCrossHadamard, DySoft
from mmdet_hadaptive.models import HadaptiveNet
from research.analysis.product_contribution import freeze_selection, replace_products

ACH = dict(type='ach', channels=12, kernel=3, product_norm='DySoft')
TABLE = dict(
    stages=[
        [dict(type='conv', channels=8, kernel=2, stride=2, act=False)],
        [
            dict(type='ghost', channels=12, expand=2, kernel=2, stride=2),
            dict(**ACH, num_selected=4),
            dict(**(ACH | dict(kernel=5, product_norm='BN')), num_selected=5),
            # To another number of channels: nothing is added to the output of this one.
            dict(**(ACH | dict(channels=10)), num_selected=3),
        ],
    ],
    final_channels=16,
)
NAMES = ['stage1.1', 'stage1.2', 'stage1.3']


def make_net(**options):
    """With weights and statistics of its own everywhere."""
    net = HadaptiveNet(TABLE, out_indices=(1,), **options)
    net.init_weights()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, (nn.BatchNorm2d, DySoft)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return net.eval().requires_grad_(False)


def draw(batch, *size):
    """Images of colours of their own, for which other channels score highest."""
    return torch.randn(batch, 3, *size) + 4 * torch.randn(batch, 3, 1, 1)


def collect(net):
    with collect_product_statistics(product_bottlenecks(net)) as statistics:
        net(draw(4, 40, 48))
    return statistics


def prune(net, statistics, needed=(), tolerance=0.5, needs_selection=()):
    """With a metric that falls by 1 for each bottleneck that lacks what it needs."""
    evaluated = []

    def evaluate(model):
        evaluated.append(model)
        with_products = {
            name: block.expansion.scorer is not None
            for name, block in (product_bottlenecks(model) if has_products(model) else {}).items()
        }
        lost = [name for name in needed if name not in with_products]
        lost += [name for name in needs_selection if not with_products.get(name)]
        return 10.0 - len(lost)

    pruned, report = prune_products(net, statistics, evaluate, tolerance)
    return pruned, report, len(evaluated)


def has_products(model):
    return any(isinstance(m, AdaptiveCrossHadamard) for m in model.modules())


def assert_equal(actual, expected, tolerance=1e-5):
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize('size', [(32, 40), (37, 51), (4, 4)])
@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize('selection', ['adaptive', 'fixed'])
def test_without_products_is_with_products_replaced_by_a_constant(size, batch, selection):
    net = make_net(ach_cfg=dict(selection=selection))
    statistics = collect(net)
    state = copy.deepcopy(net.state_dict())
    pruned, report, evaluations = prune(net, statistics)
    assert report.removed == tuple(NAMES)
    assert (report.frozen, report.kept) == ((), ())
    assert evaluations == 2
    assert not has_products(pruned)
    images = draw(batch, *size)
    (before,) = net(images)
    with replace_products(product_bottlenecks(net), statistics):
        (expected,) = net(images)
    assert (expected - before).abs().max() > 0.01 * before.abs().max()
    assert_equal(pruned(images)[0], expected)
    assert_equal(fuse_for_inference(pruned, images)(images)[0], expected)
    after = net.state_dict()
    assert all(torch.equal(after[name], value) for name, value in state.items())


@pytest.mark.parametrize('size', [(32, 40), (37, 51)])
def test_frozen_is_a_fixed_selection_of_the_highest_mean_scores(size):
    net = make_net()
    statistics = collect(net)
    needed, needs_selection = NAMES, NAMES[1:2]
    pruned, report, _ = prune(net, statistics, needed, needs_selection=needs_selection)
    assert report.removed == ()
    assert report.frozen == ('stage1.1', 'stage1.3')
    assert report.kept == ('stage1.2',)
    frozen = product_bottlenecks(net)
    frozen.pop('stage1.2')
    images = draw(3, *size)
    (before,) = net(images)
    with freeze_selection(frozen, statistics):
        (expected,) = net(images)
    assert (expected - before).abs().max() > 0.001 * before.abs().max()
    assert_equal(pruned(images)[0], expected)
    assert_equal(fuse_for_inference(pruned, images)(images)[0], expected)


def test_only_what_is_needed_stays():
    net = make_net()
    statistics = collect(net)
    pruned, report, evaluations = prune(net, statistics, needed=['stage1.2'])
    assert report.removed == ('stage1.1', 'stage1.3')
    assert (report.frozen, report.kept) == (('stage1.2',), ())
    assert list(product_bottlenecks(pruned)) == ['stage1.2']
    # As it is, without any, one by one (twice the same group), and the selection.
    assert evaluations <= 6
    layers = product_bottlenecks(net)
    images = draw(2, 33, 47)
    with ExitStack() as stack:
        removed = {name: layers[name] for name in report.removed}
        stack.enter_context(replace_products(removed, statistics))
        stack.enter_context(freeze_selection({'stage1.2': layers['stage1.2']}, statistics))
        (expected,) = net(images)
    assert_equal(pruned(images)[0], expected)


def test_the_smallest_share_goes_first():
    net = make_net()
    statistics = collect(net)
    by_share = sorted(NAMES, key=lambda name: statistics[name].share)

    def evaluate(model):
        # One bottleneck may go, whichever is first.
        return float(len(product_bottlenecks(model)) >= 2 if has_products(model) else 0)

    assert prune_products(net, statistics, evaluate)[1].removed == (by_share[0],)


@pytest.mark.parametrize(
    ('tolerance', 'removed'), [(0.0009, 0), (0.001, 3), (1.0, 3), (math.inf, 3)]
)
def test_the_tolerance_is_what_may_be_lost_in_all(tolerance, removed):
    net = make_net()
    # The difference of these two is a little more than 0.001.
    metrics = {True: 0.545, False: 0.544}
    assert 0.545 - 0.544 > 0.001

    def evaluate(model):
        whole = has_products(model) and len(product_bottlenecks(model)) == 3
        return metrics[
            whole
            and all(b.expansion.scorer is not None for b in product_bottlenecks(model).values())
        ]

    pruned, report = prune_products(net, collect(net), evaluate, tolerance)
    assert len(report.removed) == removed
    assert report.metric_before == 0.545
    assert report.metric_after == (0.544 if removed else 0.545)
    if not removed:
        assert 'products removed: nothing; kept: stage1.1, stage1.2, stage1.3' in str(report)
        images = draw(1, 32, 32)
        assert torch.equal(pruned(images)[0], net(images)[0])


def test_the_report_counts():
    net = make_net()
    statistics = collect(net)
    pruned, report, _ = prune(net, statistics, needed=['stage1.1', 'stage1.2'], tolerance=1.0)
    kept = product_bottlenecks(pruned)
    assert report.metric_before == 10
    assert report.metric_after == 10 - (2 - len(kept)) == 9
    assert report.parameters_before == sum(p.numel() for p in net.parameters())
    assert report.parameters_after == sum(p.numel() for p in pruned.parameters())
    lost = 0
    for name in report.removed:
        block = product_bottlenecks(net)[name]
        ach, outputs = block.expansion, block.projection.conv.out_channels
        products = ach.out_channels - 12
        # Depthwise kernel and its norm, a column of the projection; norm of the products; scorer.
        lost += products * (block.depthwise.conv.kernel_size[0] ** 2 + 2 + outputs)
        lost += sum(p.numel() for p in ach.product_norm.parameters()) + 5
    lost += 5 * len(report.frozen)
    assert report.parameters_before - report.parameters_after == lost
    assert f'metric 10.0000, now 9.0000 (tolerance 1)\nparameters {report.parameters_before:,}' in (
        str(report)
    )


@pytest.mark.parametrize('dynamo', [False, pytest.param(True, marks=pytest.mark.dynamo)])
def test_export_has_no_selection_left(tmp_path, dynamo):
    onnx = pytest.importorskip('onnx')
    net = make_net()
    statistics = collect(net)
    pruned, _, _ = prune(net, statistics, needed=['stage1.2'])
    images = draw(2, 36, 44)
    operations = []
    for name, model in dict(net=net, pruned=pruned).items():
        file = tmp_path / f'{name}.onnx'
        options = (
            dict(dynamic_shapes=({0: torch.export.Dim('batch')},))
            if dynamo
            else dict(dynamic_axes=dict(images={0: 'batch'}))
        )
        torch.onnx.export(
            fuse_for_inference(model, images),
            (images,),
            file,
            input_names=['images'],
            dynamo=dynamo,
            opset_version=18,
            verbose=False,
            **options,
        )
        operations.append({node.op_type for node in onnx.load(file).graph.node})
    assert 'TopK' in operations[0]
    assert 'TopK' not in operations[1]
    more = draw(5, 36, 44)
    session = create_session(file)
    (output,) = session.run(None, {'images': more.numpy()})
    assert_equal(torch.tensor(output), pruned(more)[0])


@pytest.mark.parametrize(('task', 'kept'), [('product', ('0',)), ('sum', ())])
def test_products_that_matter_are_kept(train_tiny, task, kept):
    net, statistics, accuracy = train_tiny(task, 'adaptive')
    _, report = prune_products(net, statistics, accuracy, 0.02)
    assert report.frozen + report.kept == kept
    assert report.metric_after >= report.metric_before - 0.02


@pytest.mark.parametrize('tolerance', [-0.001, math.nan])
def test_bad_tolerance(tolerance):
    net = make_net()
    with pytest.raises(ValueError, match=f'tolerance must be at least 0, got {tolerance}'):
        prune_products(net, collect(net), lambda model: 1.0, tolerance)


@pytest.mark.parametrize(
    'norm', [dict(type='GN', num_groups=1), dict(type='BN', track_running_stats=False)]
)
def test_other_norms_are_refused(norm):
    net = make_net(norm_cfg=norm, ach_cfg=dict(product_norm='DySoft'))
    with pytest.raises(ValueError, match=r'stage1\.1 has (Group|Batch)Norm.*leave the products in'):
        prune_products(net, collect(net), lambda model: 1.0)


def test_nothing_was_counted():
    net = make_net()
    with collect_product_statistics(product_bottlenecks(net)) as statistics:
        pass
    with pytest.raises(ValueError, match='no image has been counted'):
        prune_products(net, statistics, lambda model: 1.0)


def test_nothing_to_remove():
    net = make_net()
    pruned, _, _ = prune(net, collect(net))
    with pytest.raises(ValueError, match=r'HadaptiveNet has no AdaptiveBottleneck with products'):
        prune_products(pruned, {}, lambda model: 1.0)
