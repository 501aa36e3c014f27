import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn
from torch.nn import functional as F  # noqa: N812

from mmdet_hadaptive.datasets import make_shapes
from mmdet_hadaptive.export.product_statistics import (
    collect_product_statistics,
    product_bottlenecks,
)
from mmdet_hadaptive.export.pytorch_evaluation import collect_on_training_images, make_evaluation
from mmdet_hadaptive.layers import AdaptiveBottleneck, AdaptiveCrossHadamard
from mmdet_hadaptive.models import HadaptiveNet
from research.analysis.product_contribution import (
    freeze_selection,
    measure_products,
    randomize_selection,
    replace_products,
)
from research.analysis.selection_hook import SelectionHook

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'


def make_bottleneck(channels=6, selected=3, out_channels=5, selection='adaptive'):
    """With statistics and weights of its own everywhere."""
    block = AdaptiveBottleneck(
        channels, out_channels, AdaptiveCrossHadamard(channels, selected, selection=selection), 3
    )
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return block.eval().requires_grad_(False)


def collect(bottleneck, batches):
    with collect_product_statistics({'b': bottleneck}) as statistics:
        for batch in batches:
            bottleneck(batch)
    return statistics


def hidden(bottleneck, x):
    return bottleneck.depthwise(bottleneck.expansion(x))


def test_statistics_are_those_of_all_images_and_positions():
    bottleneck = make_bottleneck()
    # Of two sizes.
    batches = [torch.randn(3, 6, 7, 5), torch.randn(2, 6, 4, 9)]
    statistics = collect(bottleneck, batches)['b']
    weight = bottleneck.projection.conv.weight
    contributions, outputs = [], []
    for x in batches:
        h = hidden(bottleneck, x).movedim(1, -1).flatten(0, 2)
        contributions.append(h[:, 6:] @ weight[:, 6:, 0, 0].T)
        outputs.append(h @ weight[:, :, 0, 0].T)
    contribution, output = torch.cat(contributions), torch.cat(outputs)
    assert torch.allclose(statistics.mean_contribution.float(), contribution.mean(0), atol=1e-5)
    share = contribution.var(0, correction=0).sum() / output.var(0, correction=0).sum()
    assert share > 0.01
    assert statistics.share == pytest.approx(share.item(), rel=1e-4)
    expansion = bottleneck.expansion
    scores = [expansion.scorer(expansion.norm(expansion.pointwise(x))) for x in batches]
    assert torch.allclose(statistics.mean_scores.float(), torch.cat(scores).mean(0), atol=1e-5)


def test_replaced_products_are_their_mean_at_every_position():
    bottleneck = make_bottleneck()
    statistics = collect(bottleneck, [torch.randn(4, 6, 8, 8)])
    x = torch.randn(2, 6, 5, 7)
    before = bottleneck(x)
    conv, norm = bottleneck.projection.conv, bottleneck.projection.norm
    expected = norm(
        F.conv2d(hidden(bottleneck, x)[:, :6], conv.weight[:, :6])
        + statistics['b'].mean_contribution.float().view(1, -1, 1, 1)
    )
    with replace_products({'b': bottleneck}, statistics):
        assert torch.allclose(bottleneck(x), expected, atol=1e-5)
        assert (bottleneck(x) - before).abs().max() > 0.01
    assert torch.equal(bottleneck(x), before)


def selected(bottleneck, x):
    chosen = []
    bottleneck.expansion.on_selection = lambda scores, indices: chosen.append(indices)
    bottleneck(x)
    bottleneck.expansion.on_selection = None
    return chosen[0]


def test_frozen_selection_takes_the_highest_mean_scores():
    bottleneck = make_bottleneck()
    statistics = collect(bottleneck, [torch.randn(4, 6, 8, 8)])
    x = torch.randn(16, 6, 4, 4)
    before = selected(bottleneck, x)
    with freeze_selection({'b': bottleneck}, statistics):
        frozen = selected(bottleneck, x)
    best = statistics['b'].mean_scores.argsort(descending=True)[:3]
    assert torch.equal(frozen, best.expand(16, -1))
    assert not torch.equal(before, frozen)
    assert torch.equal(selected(bottleneck, x), before)


def test_random_selection_differs_between_images_and_not_between_runs():
    bottleneck = make_bottleneck()
    x = torch.randn(200, 6, 4, 4)
    before = selected(bottleneck, x)
    runs = []
    for _ in range(2):
        with randomize_selection({'b': bottleneck}), torch.device('meta'):
            runs.append(selected(bottleneck, x))
    assert torch.equal(*runs)
    # Each channel in half of the images.
    assert ((runs[0].flatten().bincount() - 100).abs() < 40).all()
    assert torch.equal(selected(bottleneck, x), before)


@pytest.mark.parametrize('selection', ['adaptive', 'fixed'])
def test_the_measure_tells_products_that_matter_from_those_that_do_not(train_tiny, selection):
    net, statistics, accuracy = train_tiny('product', selection)
    assert accuracy(net) > 0.95
    rows = [*measure_products(net, statistics, accuracy)]
    assert [row.layer for row in rows] == ['all', '0']
    assert max(row.constant for row in rows) < 0.65
    assert rows[1].share > 0.5
    assert [(row.random is None, row.frozen is None) for row in rows] == (
        [(selection == 'fixed',) * 2] * 2
    )

    net, statistics, accuracy = train_tiny('sum', selection)
    assert accuracy(net) > 0.95
    rows = [*measure_products(net, statistics, accuracy)]
    assert min(row.constant for row in rows) > accuracy(net) - 0.02
    assert rows[1].share < 0.25


def test_layer_by_layer():
    net = nn.Sequential(make_bottleneck(out_channels=6), make_bottleneck(selection='fixed'))
    images = torch.randn(4, 6, 8, 8)
    with collect_product_statistics(product_bottlenecks(net)) as statistics:
        net(images)
    expected = net(images)
    rows = [*measure_products(net, statistics, lambda net: (net(images) - expected).norm().item())]
    everything, first, second = rows
    assert min(first.constant, second.constant) > 0
    with replace_products(product_bottlenecks(net), statistics):
        assert everything.constant == (net(images) - expected).norm().item()
    assert (everything.random, everything.frozen) == (first.random, first.frozen)
    assert first.random > first.frozen > 0
    assert (second.random, second.frozen) == (None, None)


def test_no_products():
    with pytest.raises(ValueError, match=r'Conv2d has no AdaptiveBottleneck with products: use'):
        product_bottlenecks(nn.Conv2d(3, 4, 1))


def test_the_hook_writes_the_share_of_all_processes(monkeypatch):
    net = HadaptiveNet('small', out_indices=(3,)).eval()
    images = torch.randn(2, 3, 64, 64)
    with collect_product_statistics(product_bottlenecks(net)) as statistics, torch.no_grad():
        net(images)
    written = {}

    def validate():
        runner = SimpleNamespace(
            model=net, epoch=1, visualizer=SimpleNamespace(add_scalars=add_scalars)
        )
        hook = SelectionHook()
        hook.before_val_epoch(runner)
        with torch.no_grad():
            net(images[:1])
        hook.after_val_epoch(runner)

    def add_scalars(scalars, step):
        written.update({k: v for k, v in scalars.items() if 'product_share' in k})

    # The other process sees the other image.
    with collect_product_statistics(product_bottlenecks(net)) as other, torch.no_grad():
        net(images[1:])
    sums = iter([v for s in other.values() for v in s.sums.values()])

    def all_reduce(value):
        if value.dtype == torch.float64:
            value += next(sums)

    monkeypatch.setattr('research.analysis.selection_hook.all_reduce', all_reduce)
    validate()
    expected = {f'ach_val/{name}/product_share': s.share for name, s in statistics.items()}
    assert len(expected) == 4
    assert written == pytest.approx(expected, rel=1e-6)


def shapes_config(root):
    config = Config.fromfile(CONFIG)
    for split in ('train', 'val', 'test'):
        loader = config[f'{split}_dataloader']
        dataset = loader.dataset.get('dataset', loader.dataset)
        dataset.data_root = f'{root}/'
        loader.update(num_workers=0, persistent_workers=False)
    config.val_evaluator.ann_file = f'{root}/annotations/instances_val.json'
    return config


@pytest.fixture(scope='module')
def detector(shapes):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    return MODELS.build(shapes_config(shapes).model).eval()


def test_training_images_go_through_the_test_pipeline(shapes, detector, monkeypatch):
    config = shapes_config(shapes)
    seen = []
    monkeypatch.setattr(detector, 'test_step', lambda batch: seen.append(batch))
    collect_on_training_images(detector, config, 5)
    samples = [batch['data_samples'][0] for batch in seen]
    # Evenly spaced in 16.
    places = [Path(sample.img_path).stem for sample in samples]
    names = sorted(path.stem for path in (shapes / 'train').iterdir())
    assert places == [names[i] for i in (0, 4, 8, 11, 15)]
    assert not any('flip' in sample for sample in samples)
    seen.clear()
    collect_on_training_images(detector, config, 1000)
    assert len(seen) == 16


def test_the_evaluation_is_that_of_the_validation(shapes, detector, monkeypatch):
    config = shapes_config(shapes)
    # Detects what is there, in the first three of four classes.
    evaluate = make_evaluation(config)
    truth = json.loads((shapes / 'annotations/instances_val.json').read_text())

    def val_step(batch):
        for sample in batch['data_samples']:
            boxes = [a for a in truth['annotations'] if a['image_id'] == sample.img_id]
            corners = torch.tensor(
                [[x, y, x + w, y + h] for x, y, w, h in (a['bbox'] for a in boxes)]
            ).reshape(-1, 4)
            labels = torch.tensor([a['category_id'] for a in boxes]) - min(
                c['id'] for c in truth['categories']
            )
            keep = labels < 3
            sample.pred_instances = type(sample.gt_instances)(
                bboxes=corners[keep], labels=labels[keep].long(), scores=torch.ones(keep.sum())
            )
        return batch['data_samples']

    monkeypatch.setattr(detector, 'val_step', val_step)
    assert evaluate(detector) == pytest.approx(0.75, abs=0.01)
    assert evaluate(detector) == pytest.approx(0.75, abs=0.01)


def test_a_detector_that_detects_nothing_has_no_accuracy(shapes, detector, monkeypatch):
    def val_step(batch):
        for sample in batch['data_samples']:
            sample.pred_instances = type(sample.gt_instances)(
                bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long(), scores=torch.zeros(0)
            )
        return batch['data_samples']

    monkeypatch.setattr(detector, 'val_step', val_step)
    assert make_evaluation(shapes_config(shapes))(detector) == 0


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda c: c.pop('train_dataloader'), r'no training data \(train_dataloader with an ann_f'),
        (lambda c: c.train_dataloader.dataset.dataset.update(ann_file='no.json'), 'cannot be read'),
    ],
)
def test_no_training_data(shapes, detector, change, message):
    config = shapes_config(shapes)
    change(config)
    with pytest.raises(ValueError, match=message):
        collect_on_training_images(detector, config, 5)


def test_bad_arguments(shapes, detector):
    config = shapes_config(shapes)
    with pytest.raises(ValueError, match='at least 1 training image is needed, got 0'):
        collect_on_training_images(detector, config, 0)
    config.val_evaluator.update(type='DumpDetResults', out_file_path='x.pkl', _delete_=True)
    evaluator = config.pop('val_evaluator')
    with pytest.raises(ValueError, match=r'no validation data \(val_dataloader and val_evaluator'):
        make_evaluation(config)
    config.val_evaluator = dict(type='CocoMetric', ann_file=evaluator.ann_file, metric='proposal')
    with pytest.raises(ValueError, match=r'val_evaluator gives .*, not coco/bbox_mAP'):
        make_evaluation(config)(detector)


def test_tool(detector, tmp_path, monkeypatch, capsys):
    root = make_shapes(tmp_path / 'data', 2, 1)
    shapes_config(root).dump(tmp_path / 'config.py')
    torch.save(dict(state_dict=detector.state_dict(), meta=dict()), tmp_path / 'checkpoint.pth')
    monkeypatch.chdir(tmp_path)
    arguments = ['tool', 'config.py', 'checkpoint.pth', '--out', 'products.json']
    monkeypatch.setattr('sys.argv', arguments)
    runpy.run_path(str(ROOT / 'research/tools/evaluate_products.py'), run_name='__main__')
    output = capsys.readouterr().out
    assert 'mAP 0.000; with' in output
    layers = ['stage3.1', 'stage3.2', 'stage3.4', 'stage3.5', 'stage4.1', 'stage4.2']
    for layer in layers:
        assert re.search(rf'^\| {layer} \| 0\.\d+ \| 0\.000 \| 0\.000 \| 0\.000 \|$', output, re.M)
    content = json.loads((tmp_path / 'products.json').read_text())
    assert [row['layer'] for row in content['products']] == ['all', *layers]
    assert content['products'][1]['share'] > 0
    monkeypatch.setattr('sys.argv', [*arguments, '--num-images', '0'])
    with pytest.raises(SystemExit, match='error: at least 1 training image is needed, got 0'):
        runpy.run_path(str(ROOT / 'research/tools/evaluate_products.py'), run_name='__main__')
    # Weights of another head, which MMDetection only logs.
    state = {key: value for key, value in detector.state_dict().items() if 'bbox_head' not in key}
    torch.save(dict(state_dict=state), tmp_path / 'checkpoint.pth')
    for checkpoint, message in (
        ('checkpoint.pth', 'checkpoint.pth does not fit the config'),
        ('hadaptive://typo', "the weights that come with the package are .* got 'typo'"),
    ):
        monkeypatch.setattr('sys.argv', ['tool', 'config.py', checkpoint])
        with pytest.raises(SystemExit, match=message):
            runpy.run_path(str(ROOT / 'research/tools/evaluate_products.py'), run_name='__main__')
