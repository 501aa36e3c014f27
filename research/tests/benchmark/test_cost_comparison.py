import csv
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from mmdet_hadaptive.utils.costs import Costs, count_costs
from research.benchmark.cost_comparison import (
    Entry,
    compare_entries,
    draw_accuracy,
    load_entry,
)
from research.markdown import markdown_table

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / 'configs'
BASELINES = ROOT / 'research/configs/baselines'
FILES = {'markdown': 'table.md', 'csv': 'table.csv', 'picture': 'picture.png'}
OURS = CONFIGS / 'ssdlite/ssdlite_hadaptive-s_8xb24-600e_coco.py'


def stem(path):
    return path.stem


def entry(name, seconds=(), parameters=2_000_000, macs=10**9):
    seconds = {'PyTorch': list(seconds)} if seconds else {}
    model = nn.Conv2d(3, 4, 3)
    costs, backbone_costs = Costs(parameters, macs), Costs(parameters // 2, macs // 2)
    return Entry(name, model, 16, 24, costs, backbone_costs, seconds)


def test_a_config_is_counted_at_the_size_it_is_tested_on():
    loaded = load_entry(OURS)
    assert (loaded.name, loaded.height, loaded.width) == (OURS.stem, 320, 320)
    model = MODELS.build(Config.fromfile(OURS).model)
    assert loaded.costs == count_costs(model, 320, 320)
    # The authors' count, less the final convolution, which detectors do not use.
    final = 960 * 128 * 10 * 10
    assert loaded.backbone_costs == Costs(619_652, 264_563_200 - final)
    assert not loaded.model.training


def test_branches_for_training_are_merged():
    loaded = load_entry(BASELINES / 'ssdlite_ghostnetv3_8xb24-600e_coco.py')
    # The backbone that is trained has 1,920,828. What has been merged is not trainable any more.
    assert loaded.backbone_costs.parameters == 1_242_108


@torch.no_grad()
@pytest.mark.parametrize('config', sorted(BASELINES.glob('*_8xb24-600e_coco.py')), ids=stem)
def test_what_is_timed_computes_what_the_config_describes(config):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model).eval()
    torch.manual_seed(0)
    loaded = load_entry(config)
    image = torch.randn(1, 3, 320, 320)
    for actual, expected in zip(
        tree_leaves(loaded.model(image)), tree_leaves(model(image)), strict=True
    ):
        assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert not any(isinstance(module, _BatchNorm) for module in loaded.model.modules())


def test_ratios_are_taken_within_a_round():
    slow_then_fast = [4.0, 4.0, 4.0, 1.0, 1.0]
    headings, rows = compare_entries(
        [
            entry('reference', slow_then_fast),
            entry('half', [x / 2 for x in slow_then_fast], 1_000_000, 25 * 10**7),
            entry('untimed'),
        ],
        'reference',
    )
    table = markdown_table(headings, rows).splitlines()
    assert table[0] == (
        '| config | input | parameters M | ratio | MACs G | ratio | backbone M | backbone G '
        '| PyTorch ms | PyTorch ratio |'
    )
    assert table[3] == (
        '| half | 24 x 16 | 1.00 | 0.50 | 0.250 | 0.25 | 0.50 | 0.125 '
        '| 2000.0 | 0.50 (0.50 to 0.50) |'
    )
    assert rows[2][-2:] == ['', '']
    with pytest.raises(ValueError, match='reference must be one of reference, half'):
        compare_entries([entry('reference'), entry('half')], 'third')


def test_picture(tmp_path):
    results = [
        {'config': 'ssdlite_hadaptive-s_bccd', 'coco/bbox_mAP': 0.5},
        {'config': 'ssdlite_hadaptive-s_bccd', 'coco/bbox_mAP': 0.6},
    ]
    draw_accuracy([entry('ssdlite_hadaptive-s_bccd'), entry('other')], results, tmp_path / 'x.png')
    pixels = np.asarray(Image.open(tmp_path / 'x.png').convert('RGB'))
    red = (pixels[..., 0] > 180) & (pixels[..., 1] < 80) & (pixels[..., 2] < 80)
    assert red.sum() > 50
    with pytest.raises(ValueError, match='none of the results'):
        draw_accuracy([entry('other')], results, tmp_path / 'y.png')


def test_the_picture_is_over_time_where_there_is_time(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plt, 'close', figures.append)
    results = [{'config': 'ssdlite_other', 'coco/bbox_mAP': 0.5}]
    for seconds in ((), [0.02, 0.03, 0.02]):
        draw_accuracy([entry('ssdlite_other', seconds)], results, tmp_path / 'x.png')
    counted, timed = (figure.axes[0] for figure in figures)
    assert counted.get_xlabel() == 'multiply-accumulates (G) per image'
    assert timed.get_xlabel() == 'milliseconds per batch, PyTorch'
    (marker, *_) = timed.containers[0]
    assert marker.get_xdata() == pytest.approx([20])


def test_command(run, tmp_path):
    results = tmp_path / 'results.jsonl'
    results.write_text(json.dumps({'config': OURS.stem, 'coco/bbox_mAP': 0.2}) + '\n')
    files = [f'--{kind}={tmp_path / name}' for kind, name in FILES.items()]
    output = run(
        ROOT / 'research/tools/compare_costs.py',
        OURS,
        '--rounds=2',
        '--threads=1',
        *files,
        f'--results={results}',
        cwd=tmp_path,
    )
    assert f'| {OURS.stem} | 320 x 320 | 1.72 | 1.00 | 0.297 | 1.00 | 0.62 | 0.252 |' in output
    assert (tmp_path / FILES['markdown']).read_text() in output
    with (tmp_path / FILES['csv']).open() as file:
        (row,) = csv.DictReader(file)
    assert float(row['PyTorch ms']) > 0
    assert (tmp_path / FILES['picture']).stat().st_size > 1000
