from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

ROOT = Path(__file__).parents[2]


def load(path):
    config = Config.fromfile(path)
    init_default_scope(config.default_scope)
    return config


BASELINES = sorted(path for path in (ROOT / 'research/configs/baselines').glob('*.py'))
OURS = {
    ('ssdlite', 'coco'): 'ssdlite/ssdlite_hadaptive-s_8xb24-600e_coco.py',
    ('ssdlite', 'bccd'): 'ssdlite/ssdlite_hadaptive-s_bccd.py',
    ('retinanet', 'coco'): 'retinanet/retinanet_hadaptive-s_fpn_1x_coco.py',
}


@pytest.mark.parametrize('path', BASELINES, ids=lambda path: path.stem)
def test_baselines_differ_from_ours_in_backbone_and_channels_only(path):
    words = path.stem.split('_')
    compared = []
    for config in (load(path), load(ROOT / 'configs' / OURS[words[0], words[-1]])):
        resolved = config.to_dict()
        resolved.pop('custom_imports')
        model = resolved['model']
        model.pop('backbone')
        for part in (model['neck'], model['bbox_head']):
            part.pop('in_channels')
        if words[0] == 'ssdlite':
            model['neck']['out_channels'] = model['neck']['out_channels'][2:]
        compared.append(resolved)
    assert compared[0] == compared[1]


def test_all_baselines_have_all_recipes():
    backbones = {tuple(path.stem.split('_')) for path in BASELINES}
    by_recipe = {
        recipe: {words[1] for words in backbones if (words[0], words[-1]) == recipe}
        for recipe in OURS
    }
    assert len(by_recipe['ssdlite', 'coco']) == 9
    assert len({frozenset(names) for names in by_recipe.values()}) == 1
