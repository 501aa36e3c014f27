import re
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_hadaptive.backbones import HadaptiveNet

README = (Path(__file__).parents[1] / 'README.md').read_text()


def test_the_swapped_detector_runs():
    (snippet,) = re.findall(r'```python\n(_base_ = .*?)```', README, re.DOTALL)
    config = Config.fromstring(snippet, '.py')
    init_default_scope('mmdet')
    model = MODELS.build(config.model).eval()
    assert isinstance(model.backbone, HadaptiveNet)
    with torch.no_grad():
        scores, *_ = model(torch.randn(1, 3, 128, 128), mode='tensor')
    assert [score.shape[-1] for score in scores] == [16, 8, 4, 2, 1]


def test_the_table_of_channels_is_right():
    rows = re.findall(r'^\| (small|medium|large) \|(.*)\|$', README, re.MULTILINE)
    assert len(rows) == 3
    for arch, cells in rows:
        channels = tuple(int(cell) for cell in cells.split('|') if cell.strip())
        net = HadaptiveNet(arch, out_indices=range(1, len(channels) + 1))
        assert net.out_channels == channels


def test_named_files_exist():
    root = Path(__file__).parents[1]
    for path in re.findall(r'\]\((?!http)([^)]+)\)', README):
        assert (root / path.split('#')[0]).exists(), path
    for path in re.findall(r'(?:tools|configs)/[\w./-]+\.(?:py|sh)', README):
        assert (root / path).exists(), path
