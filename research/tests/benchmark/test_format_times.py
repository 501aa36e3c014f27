import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hadaptive_runtime import load_exported
from research.benchmark.cost_comparison import load_entry
from research.benchmark.format_times import compare_formats, export_entries

ROOT = Path(__file__).parents[3]
OURS = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_8xb24-600e_coco.py'
NAME = f'{OURS.stem} without products'


@pytest.fixture(scope='module')
def pruned():
    return load_entry(OURS, pruned=True)


def test_what_is_exported_is_the_detector(pruned, tmp_path):
    files = export_entries([pruned], ['opencv'], tmp_path)
    assert [*files] == [(NAME, 'opencv')]
    inputs = np.random.default_rng(0).standard_normal((1, 3, 320, 320), np.float32)
    outputs = load_exported(files[NAME, 'opencv']).session.run(inputs)
    with torch.no_grad():
        levels, _ = pruned.model(torch.from_numpy(inputs), mode='tensor')
    logits = torch.cat([x.permute(0, 2, 3, 1).reshape(1, -1, 81) for x in levels], 1)
    assert np.allclose(outputs['scores'], logits.softmax(-1)[..., :-1], atol=1e-5)
    # What is there is not exported again.
    file = files[NAME, 'opencv'].with_suffix('.json')
    file.write_text(json.dumps({}))
    export_entries([pruned], ['opencv'], tmp_path)
    assert file.read_text() == '{}'


def test_an_entry_without_products_costs_less(pruned):
    assert pruned.name == NAME
    assert pruned.backbone_costs.parameters == 380_064


def test_ratios_are_those_of_the_best_runtimes():
    times = {
        ('a', 'onnx'): [4.0, 4.0, 2.0],
        ('a', 'ncnn'): [8.0, 2.0, 2.0],
        ('b', 'onnx'): [2.0, 2.0, 1.0],
    }
    headings, rows = compare_formats(times, 'a')
    assert headings == ['config', 'ONNX Runtime ms', 'ncnn ms', 'best', 'ratio']
    assert rows == [
        ['a', '4000.00', '2000.00', 'ncnn', '1.00 (1.00 to 1.00)'],
        ['b', '2000.00', '', 'ONNX Runtime', '0.50 (0.38 to 0.75)'],
    ]
