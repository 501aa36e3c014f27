from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config

from mmdet_hadaptive.utils.costs import count_costs
from research.benchmark.compared_networks import write_random_architectures

ROOT = Path(__file__).parents[3]
SEARCH = ROOT / 'research/configs/search/ssdlite_hadaptive-search-s_shapes.py'


def test_they_differ_and_cost_what_the_search_is_to_find(tmp_path):
    register_all_modules()
    files = write_random_architectures(SEARCH, 3, tmp_path)
    assert [file.name for file in files] == [f'ssdlite_random-{seed}.py' for seed in range(3)]
    backbones = []
    for file in files:
        config = Config.fromfile(file)
        assert config.train_cfg.max_epochs == 9, 'it trains as what was found does'
        assert config.model.backbone.type == 'HadaptiveNet'
        backbone = MODELS.build(config.model).backbone
        assert count_costs(backbone, 192, 192).macs == pytest.approx(90.8e6, rel=0.05)
        backbones.append(config.model.backbone.arch.to_dict())
    assert backbones[0] != backbones[1] != backbones[2] != backbones[0]


def test_a_latency_is_refused(tmp_path):
    file = tmp_path / 'search.py'
    file.write_text(
        f"_base_ = '{SEARCH}'\n"
        'custom_hooks = _base_.custom_hooks\n'
        'custom_hooks[-1].target = dict(_delete_=True, latency_ms=3.0)\n'
    )
    with pytest.raises(ValueError, match=r'latency_ms.*target of macs'):
        write_random_architectures(file, 1, tmp_path)
