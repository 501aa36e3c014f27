import re
import runpy

import numpy as np
import onnx
import pytest
import torch
from mmdet.models import SingleStageDetector

from hadaptive_runtime.onnx_session import create_session
from mmdet_hadaptive.export import (
    ExportError,
    evaluate_exported,
    export,
    export_detector,
    prune_products,
)
from mmdet_hadaptive.export.product_statistics import (
    collect_product_statistics,
    product_bottlenecks,
)
from mmdet_hadaptive.layers import AdaptiveBottleneck, AdaptiveCrossHadamard

from .conftest import on_training_images, small_config


def evaluated_on_training_images(root):
    """What a network learnt by heart, it detects, and pruning sees what it loses."""
    config = on_training_images(small_config(root))
    dataset = config.val_dataloader.dataset
    dataset.ann_file = 'annotations/instances_train.json'
    dataset.data_prefix = dict(img='train/')
    config.val_evaluator.ann_file = dataset.data_root + dataset.ann_file
    return config


def operations(file):
    return {node.op_type for node in onnx.load(file).graph.node}


def test_the_exported_model_is_the_pruned_one(trained, tmp_path):
    root, checkpoint = trained
    whole, pruned = tmp_path / 'whole.onnx', tmp_path / 'pruned.onnx'
    options = dict(batch=None)
    report = export_detector(evaluated_on_training_images(root), checkpoint, whole, **options)
    assert report.pruning is None
    report = export_detector(
        evaluated_on_training_images(root), checkpoint, pruned, prune=1.0, **options
    )
    assert report.pruning.removed == ('stage3.1',)
    assert report.difference < 1e-3
    # Of the selection; the candidates of the non-maximum suppression are chosen by one, too.
    assert sum(node.op_type == 'TopK' for node in onnx.load(pruned).graph.node) == (
        sum(node.op_type == 'TopK' for node in onnx.load(whole).graph.node) - 1
    )
    images = np.float32(np.random.default_rng(0).normal(size=(3, 3, 192, 192)))
    before, after = (create_session(file).run(None, {'images': images}) for file in (whole, pruned))
    assert np.abs(before[1] - after[1]).max() > 1e-4

    metrics = [
        evaluate_exported(evaluated_on_training_images(root), file, tmp_path / 'onnx')[
            'coco/bbox_mAP'
        ]
        for file in (whole, pruned)
    ]
    assert metrics[0] > 0.05
    assert metrics == pytest.approx(
        [report.pruning.metric_before, report.pruning.metric_after], abs=1e-3
    )


@torch.no_grad()
def test_the_mean_of_what_products_contributed_stays():
    torch.manual_seed(0)
    model = torch.nn.Sequential(AdaptiveBottleneck(8, 12, AdaptiveCrossHadamard(8, 4), 3)).eval()
    images = torch.randn(4, 8, 6, 6)
    with collect_product_statistics(product_bottlenecks(model)) as statistics:
        model(images)
    pruned, _ = prune_products(model, statistics, lambda model: 1.0)
    expected, actual = model(images), pruned(images)
    assert (expected - actual).abs().max() > 0.01
    assert torch.allclose(expected.mean((0, 2, 3)), actual.mean((0, 2, 3)), atol=1e-5)


def test_products_stay_if_too_much_would_be_lost(trained, tmp_path, monkeypatch):
    root, checkpoint = trained
    out = tmp_path / 'model.onnx'
    config = evaluated_on_training_images(root)

    def worse_without(self, batch):
        results = val_step(self, batch)
        if not hasattr(self.backbone.stage3[1].expansion, 'scorer'):
            for sample in results:
                sample.pred_instances.bboxes += 1000
        return results

    val_step = SingleStageDetector.val_step
    monkeypatch.setattr(SingleStageDetector, 'val_step', worse_without)
    options = dict(outputs='features')
    report = export_detector(config, checkpoint, out, prune=0.0, **options)
    assert report.pruning.removed == ()
    assert 'products removed: nothing; kept: stage3.1' in str(report.pruning)
    assert report.pruning.metric_after >= report.pruning.metric_before


@pytest.mark.parametrize(
    ('change', 'prune', 'message'),
    [
        (None, 0.1, r'cannot be pruned: the metric of the model is 0, so nothing can be lost'),
        (None, -0.1, r'cannot be pruned: the tolerance must be at least 0, got -0\.1'),
        ('train_dataloader', 0.001, 'cannot be pruned: the config has no training data'),
        ('val_evaluator', 0.001, 'cannot be pruned: the config has no validation data'),
        ('norm', 0.001, r'cannot be pruned: stage3\.1 has GroupNorm'),
    ],
)
def test_refusals(untrained, tmp_path, change, prune, message):
    root, checkpoint = untrained
    config = small_config(root)
    if change == 'norm':
        config.model.backbone.norm_cfg = dict(type='GN', num_groups=2)
        state = torch.load(checkpoint, weights_only=True)
        state['state_dict'] = {
            k: v
            for k, v in state['state_dict'].items()
            if not (k.startswith('backbone') and 'norm.' in k and ('running' in k or 'num_' in k))
        }
        checkpoint = tmp_path / 'group_norm.pth'
        torch.save(state, checkpoint)
    elif change:
        config.pop(change)
    out = tmp_path / 'model.onnx'
    with pytest.raises(ExportError, match=message):
        export_detector(config, checkpoint, out, outputs='features', prune=prune)
    assert not out.exists()


def test_what_cannot_be_converted_is_found_before_pruning(untrained, tmp_path, monkeypatch):
    root, checkpoint = untrained
    monkeypatch.setattr(export, '_prune', None)
    config = small_config(root)
    config.model.test_cfg.score_thr = 0.999
    with pytest.raises(ExportError, match=r'neither .* detects anything'):
        export_detector(config, checkpoint, tmp_path / 'model.onnx', prune=0.001)
    monkeypatch.setattr('mmdet_hadaptive.export.writers.find_spec', lambda package: None)
    with pytest.raises(ExportError, match='pnnx is not installed'):
        export_detector(config, checkpoint, tmp_path / 'model.param', 'ncnn', prune=0.001)
    assert not list(tmp_path.iterdir())


def test_tool(trained, tmp_path, monkeypatch, pytestconfig, capsys):
    root, checkpoint = trained
    evaluated_on_training_images(root).dump(tmp_path / 'config.py')
    monkeypatch.chdir(tmp_path)
    command = f'tool config.py {checkpoint} model.onnx --outputs features'
    monkeypatch.setattr('sys.argv', [*command.split(), '--prune', '1'])
    runpy.run_path(str(pytestconfig.rootpath / 'tools/export.py'), run_name='__main__')
    output = capsys.readouterr().out
    assert 'products removed: stage3.1; kept: nothing\nselection frozen: nothing\n' in output
    assert re.search(r'metric 0\.\d{4}, now 0\.\d{4} \(tolerance 1\)\n', output)
    assert 'TopK' not in operations('model.onnx')
