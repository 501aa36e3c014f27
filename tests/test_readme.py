import json
import re
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmdet_hadaptive.models import PUBLISHED_ARCHITECTURES, HadaptiveNet

ROOT = Path(__file__).parents[1]
DOCS = ROOT / 'docs'
README = (ROOT / 'README.md').read_text()
BACKBONE = (DOCS / 'models.md').read_text()
PAGES = sorted(
    [
        *ROOT.glob('*.md'),
        *DOCS.glob('*.md'),
        *(ROOT / 'configs').rglob('README.md'),
        *(ROOT / 'research').rglob('*.md'),
    ]
)
# A record of changes names what is no longer there.
PRESENT = [page for page in PAGES if page.name != 'CHANGELOG.md']
MAX_PICTURE = 300_000


def name(path):
    return path.relative_to(ROOT).as_posix()


def prose(page):
    """The text of a page without its code."""
    return re.sub(r'```.*?```|`[^`\n]*`', '', page.read_text(), flags=re.DOTALL)


def links(page):
    return re.findall(r'\]\((?!https?:)([^)\s]+)\)', prose(page))


def anchors(page):
    """The anchors that GitHub gives to the headings of a page."""
    text = re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL)
    headings = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def test_the_swapped_detector_runs():
    (snippet,) = re.findall(r'```python\n(_base_ = .*?)```', README, re.DOTALL)
    config = Config.fromstring(snippet, '.py')
    init_default_scope('mmdet')
    model = MODELS.build(config.model).eval()
    assert isinstance(model.backbone, HadaptiveNet)
    with torch.no_grad():
        scores, *_ = model(torch.randn(1, 3, 128, 128), mode='tensor')
    assert [score.shape[-1] for score in scores] == [16, 8, 4, 2, 1]


def test_the_plain_snippet_runs(capsys):
    (snippet,) = re.findall(r'```python\n(import torch\n.*?)```', BACKBONE, re.DOTALL)
    exec(snippet, {})
    shapes = [(2, 64, 28, 28), (2, 96, 14, 14), (2, 128, 7, 7)]
    assert capsys.readouterr().out == f'{shapes} (8, 16, 32)\n'


def test_the_table_of_channels_is_right():
    table = re.findall(r'^\| (small|medium|large) \|(.*)\|$', BACKBONE, re.MULTILINE)
    assert [arch for arch, _ in table] == list(PUBLISHED_ARCHITECTURES)
    for arch, cells in table:
        channels = tuple(int(cell) for cell in cells.split('|') if cell.strip())
        net = HadaptiveNet(arch, out_indices=range(1, len(channels) + 1))
        assert net.out_channels == channels


@pytest.mark.parametrize('arch', PUBLISHED_ARCHITECTURES)
def test_the_pictures_show_the_present_architectures(arch):
    def table(picture):
        return json.loads(Image.open(DOCS / picture).text['Description'])

    hint = 'run research/tools/draw_architecture.py'
    assert table(f'backbone_{arch}.png') == PUBLISHED_ARCHITECTURES[arch], hint
    assert table('ach_block.png') in PUBLISHED_ARCHITECTURES['small']['stages'][3], hint


@pytest.mark.parametrize('page', PAGES, ids=name)
def test_links_lead_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition('#')
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize('page', PRESENT, ids=name)
def test_named_files_exist(page):
    text = re.sub(r'\S*://\S*', '', page.read_text())
    for path in re.findall(r'(?<![\w/.])(?:tools|configs|tests)/[\w./-]+\.(?:py|sh)', text):
        if path == 'tools/TOOL.py':  # stands for any
            continue
        assert (ROOT / path).exists(), path


def test_every_page_is_in_the_index():
    listed = {link.partition('#')[0] for link in links(DOCS / 'README.md')}
    assert {page.name for page in DOCS.glob('*.md')} - {'README.md'} <= listed


def test_pictures_are_small_and_shown():
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page)}
    pictures = [path for path in DOCS.iterdir() if path.suffix in {'.png', '.jpg', '.svg'}]
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < MAX_PICTURE, picture.name
        assert picture in shown, picture.name
