import json
import re
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmdet_hadaptive.analysis.metrics import MAP, MAP_50
from mmdet_hadaptive.backbones import PUBLISHED_ARCHITECTURES, HadaptiveNet
from mmdet_hadaptive.benchmark.accuracy import format_spread, tabulate_comparison
from mmdet_hadaptive.benchmark.prepared_data import tabulate_detectors

ROOT = Path(__file__).parents[1]
DOCS = ROOT / 'docs'
README = (ROOT / 'README.md').read_text()
BACKBONE = (DOCS / 'backbone.md').read_text()
PAGES = sorted([*ROOT.glob('*.md'), *DOCS.glob('*.md'), *(ROOT / 'configs').rglob('README.md')])
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


def rows(text, heading):
    """The table below a line of headings: the cells of each row, without bold type."""
    table = text.partition(heading)[2].lstrip('\n').split('\n\n')[0]
    lines = [line.replace('**', '').strip('|').split('|') for line in table.splitlines()[1:]]
    return [[cell.strip() for cell in line] for line in lines]


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


def test_the_results_are_those_of_the_benchmark():
    benchmark = (DOCS / 'benchmark.md').read_text()
    heading = '| config | input | parameters M | ratio | MACs G | ratio | backbone M | backbone G |'
    costs = rows(benchmark, f'{heading} PyTorch ms | PyTorch ratio |')
    accuracy = rows(benchmark, '| config | seeds | mAP | mAP50 | difference in mAP |')
    scores = {row[0].split('_')[1]: row[2] for row in accuracy}
    expected = [
        [row[0].split('_')[1], *row[2:6], row[9], scores.get(row[0].split('_')[1], '')]
        for row in costs
    ]
    assert len(expected) == 15
    assert len(scores) == 7
    shown = rows(
        README,
        '| SSDLite with | parameters M | ratio | MACs G | ratio | PyTorch ms ratio | BCCD mAP |',
    )
    assert shown == expected


def test_the_number_of_swapped_folders_is_that_of_the_sweep():
    ((folders, works),) = re.findall(r"MMDetection's (\d+)\s+folders of configs (\d+)", README)
    results = re.findall(
        r'^\| \S+ \| \S+\.py \| ([\w ]+) \|', (DOCS / 'swap.md').read_text(), re.MULTILINE
    )
    assert (int(folders), int(works)) == (len(results), results.count('works'))


@pytest.mark.parametrize('arch', PUBLISHED_ARCHITECTURES)
def test_the_pictures_show_the_present_architectures(arch):
    def table(picture):
        return json.loads(Image.open(DOCS / picture).text['Description'])

    hint = 'run tools/development/draw_architecture.py'
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


@pytest.mark.parametrize(
    ('page', 'file'),
    [('search.md', 'search_results.jsonl'), ('weights.md', 'recipes_results.jsonl')],
)
def test_tables_have_the_measured_scores(page, file):
    by_config = defaultdict(list)
    for line in (DOCS / file).read_text().splitlines():
        result = json.loads(line)
        key = result.get('data'), result.get('machine'), result['config']
        by_config[key].append(result)
    measured = sorted(
        tuple(format_spread([result[metric] for result in results]) for metric in (MAP, MAP_50))
        for results in by_config.values()
    )
    score = r'([\d.]+(?: ± [\d.]+)?)'
    rows = re.findall(rf'\| {score} \| {score} \|$', (DOCS / page).read_text(), re.MULTILINE)
    assert sorted(rows) == measured


def test_what_weights_and_recipes_are_worth_is_that_of_the_results():
    page = (DOCS / 'weights.md').read_text()
    sets = dict(fruit='fruit', bccd='blood cells', cards='cards', raccoon='raccoons')
    starts = dict(scratch='from scratch', pretrained='pre-trained')
    machines = {'two cores of an AMD EPYC': 'AMD EPYC', 'NVIDIA H200': 'H200'}
    runs = defaultdict(dict)
    for line in (DOCS / 'recipes_results.jsonl').read_text().splitlines():
        result = json.loads(line)
        if result['machine'] in machines and 'data' not in result:
            data, recipe, epochs = re.fullmatch(
                '([a-z]+)_(.+)-([0-9]+)e', result['config']
            ).groups()
            key = sets[data], machines[result['machine']], int(epochs), recipe
            runs[key][result['seed']] = result

    def spread(values, sign=''):
        return format_spread([*values], sign)

    def scores(by_seed):
        return ' | '.join(
            spread(result[metric] for result in by_seed.values()) for metric in (MAP, MAP_50)
        )

    def differences(by_seed, others):
        return [by_seed[seed][MAP] - others[seed][MAP] for seed in by_seed]

    pairs = []
    for (data, machine, epochs, recipe), by_seed in runs.items():
        if recipe in starts and (data, machine, epochs, 'scratch') in runs:
            start, seeds = starts[recipe], len(by_seed)
            row = f'| {data} | {machine} | {start} | {epochs} | {seeds} | {scores(by_seed)} |'
            assert row in page
            if recipe == 'pretrained':
                others = runs[data, machine, epochs, 'scratch']
                common = {seed: by_seed[seed] for seed in by_seed.keys() & others.keys()}
                pairs += differences(common, others)
        elif machine == 'AMD EPYC':
            control = 'H200' if data == 'raccoons' else machine
            others = runs[data, control, epochs, 'pretrained']
            difference = spread(differences(by_seed, others), '+')
            row = f'| {data} | {recipe} | {len(by_seed)} | {difference} | {scores(by_seed)} |'
            assert row in page
    assert f'help in {sum(pair > 0 for pair in pairs)} of {len(pairs)} pairs' in page


def test_the_comparison_of_backbones_is_that_of_its_results():
    page = (DOCS / 'benchmark.md').read_text()
    scores = defaultdict(dict)
    for line in (DOCS / 'backbones_results.jsonl').read_text().splitlines():
        result = json.loads(line)
        if 'note' not in result:
            data, backbone, rate = re.fullmatch(
                r'([a-z]+)_(.+)-7e-lr(.+)', result['config']
            ).groups()
            scores[backbone][data, float(rate), result['seed']] = result
    assert len(scores) == 5
    compared = {}
    for backbone, by_run in scores.items():
        tried = {rate: by_run['fruit', rate, 0][MAP] for rate in (0.001, 0.002, 0.004)}
        assert f'| {backbone} | {" | ".join(f"{x:.3f}" for x in tried.values())} |' in page
        best = max(tried, key=tried.get)
        compared[backbone] = {
            data: [by_run[data, best, seed] for seed in range(3)]
            for data in ('fruit', 'bccd', 'cards')
        }
    for row in tabulate_detectors(compared, 'hadaptive-s-pointwise').splitlines()[2:]:
        assert row in page


def test_the_comparison_of_classifiers_is_that_of_its_results():
    lines = (DOCS / 'classifiers_results.jsonl').read_text().splitlines()
    results = [json.loads(line) for line in lines]
    assert len(results) == 5
    table = tabulate_comparison(results, results[0]['config'])
    assert table in (DOCS / 'benchmark.md').read_text()


def test_the_readme_is_short():
    assert README.count('\n') <= 200
