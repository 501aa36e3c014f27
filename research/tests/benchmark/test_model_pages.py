import re
from pathlib import Path

import modelindex
import pytest
import yaml
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_hadaptive.utils.costs import count_costs
from research.benchmark.model_pages import render_index, render_pages

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / 'configs'
FOLDERS = sorted({path.parent for path in CONFIGS.glob('*/*.py')})
HINT = 'run research/tools/write_model_pages.py'


def models(folder):
    return yaml.safe_load((folder / 'metafile.yml').read_text())['Models']


@pytest.mark.parametrize('folder', FOLDERS, ids=lambda folder: folder.name)
def test_pages_say_what_the_configs_are(folder):
    for path, text in render_pages(folder).items():
        assert path.read_text() == text, HINT


def test_counted_without_values_as_with_values():
    folder = CONFIGS / 'ssdlite'
    (model,) = (m for m in models(folder) if m['Name'] == 'ssdlite_hadaptive-s_8xb24-600e_coco')
    config = Config.fromfile(ROOT / model['Config'])
    init_default_scope('mmdet')
    costs = count_costs(MODELS.build(config.model), 320, 320)
    assert model['Metadata']['Parameters'] == costs.parameters
    assert model['Metadata']['FLOPs'] == costs.macs
    assert (
        f'| {costs.parameters / 1e6:.2f} | {costs.macs / 1e9:.3f} | COCO | 600 |  |'
        in (folder / 'README.md').read_text()
    )


def test_the_index_leads_to_every_config():
    assert (ROOT / 'model-index.yml').read_text() == render_index(CONFIGS), HINT
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    # OpenMMLab's metafiles give this path from the root, the library expects it from the file.
    errors = [error for error in index.check(silent=True) if 'Path to README' not in error]
    assert errors == []
    assert all((ROOT / collection.readme).is_file() for collection in index.collections)
    listed = sorted(model.config for model in index.models)
    assert listed == sorted(str(path.relative_to(ROOT)) for path in CONFIGS.glob('*/*.py'))


@pytest.mark.parametrize('folder', FOLDERS, ids=lambda folder: folder.name)
def test_links_lead_somewhere(folder):
    page = (folder / 'README.md').read_text()
    for link in re.findall(r'\]\((?!http)([^)]+)\)', page):
        assert (folder / link.partition('#')[0]).exists(), link


def test_a_new_folder_gets_pages_and_keeps_what_is_written_by_hand(tmp_path):
    folder = tmp_path / 'configs/mine'
    folder.mkdir(parents=True)
    source = CONFIGS / 'ssdlite/ssdlite_hadaptive-s_shapes.py'
    (folder / 'mine_shapes.py').write_text(f'_base_ = {str(source)!r}\n')
    for path, text in render_pages(folder).items():
        path.write_text(text)
    page, metafile = folder / 'README.md', folder / 'metafile.yml'
    assert '| [mine_shapes](mine_shapes.py) | 192 x 192 | 1.09 | 0.096 |' in page.read_text()

    page.write_text(page.read_text().replace('# mine', '# Mine') + '\nBy hand.\n')
    results = [dict(Task='Object Detection', Dataset='shapes', Metrics={'box AP': 12.3})]
    content = yaml.safe_load(metafile.read_text())
    content['Models'][0].update(Results=results, Weights='http://x', Metadata={})
    metafile.write_text(yaml.safe_dump(content))
    pages = render_pages(folder)
    assert pages[page].startswith('# Mine\n')
    assert pages[page].endswith('\nBy hand.\n')
    assert '| drawn shapes | 9 | 12.3 |' in pages[page]
    (model,) = yaml.safe_load(pages[metafile])['Models']
    assert (model['Results'], model['Weights']) == (results, 'http://x')
    assert model['Metadata']['Epochs'] == 9

    # Frozen parameters are parameters too.
    frozen = 'model = dict(backbone=dict(frozen_stages=4))\n'
    (folder / 'mine_shapes.py').write_text(f'_base_ = {str(source)!r}\n{frozen}')
    (same,) = yaml.safe_load(render_pages(folder)[metafile])['Models']
    assert same['Metadata'] == model['Metadata']

    (folder / 'mine_shapes.py').rename(folder / 'mine.py')
    with pytest.raises(ValueError, match=r'mine\.py ends in none of'):
        render_pages(folder)
    page.write_text('# Mine\n')
    with pytest.raises(ValueError, match='no place for the table'):
        render_pages(folder)
