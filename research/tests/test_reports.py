"""The tables of the reports are those of the recorded results."""

import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean

import pytest

from mmdet_hadaptive.utils.metrics import MAP, MAP_50
from research.benchmark.accuracy import format_spread, tabulate_comparison
from research.benchmark.prepared_data import tabulate_detectors

REPORTS = Path(__file__).parents[1] / 'reports'
WEIGHTS = 'docs/weights.md'


@pytest.mark.parametrize(
    ('page', 'file'),
    [
        ('search.md', 'search_results.jsonl'),
        ('weights.md', 'recipes_results.jsonl'),
        ('distillation.md', 'distillation_results.jsonl'),
    ],
)
def test_tables_have_the_measured_scores(page, file):
    by_config = defaultdict(list)
    for line in (REPORTS / file).read_text().splitlines():
        result = json.loads(line)
        key = [result.get(name) for name in ('data', 'machine', 'weights', 'config')]
        by_config[tuple(key)].append(result)
    measured = sorted(
        tuple(format_spread([result[metric] for result in results]) for metric in (MAP, MAP_50))
        for results in by_config.values()
    )
    score = r'([\d.]+(?: ± [\d.]+)?)'
    rows = re.findall(rf'\| {score} \| {score} \|$', (REPORTS / page).read_text(), re.MULTILINE)
    assert sorted(rows) == measured


def test_what_weights_and_recipes_are_worth_is_that_of_the_results():
    page = (REPORTS / 'weights.md').read_text()
    sets = dict(fruit='fruit', bccd='blood cells', cards='cards', raccoon='raccoons')
    starts = dict(scratch='from scratch', pretrained='pre-trained')
    machines = {'two cores of an AMD EPYC': 'AMD EPYC', 'NVIDIA H200': 'H200'}
    runs = defaultdict(dict)
    for line in (REPORTS / 'recipes_results.jsonl').read_text().splitlines():
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
    page = (REPORTS / 'benchmark.md').read_text()
    scores = defaultdict(dict)
    for line in (REPORTS / 'backbones_results.jsonl').read_text().splitlines():
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
    for row in tabulate_detectors(compared, 'hadaptive-s-ir').splitlines()[2:]:
        assert row in page


def test_the_comparison_of_classifiers_is_that_of_its_results():
    lines = (REPORTS / 'classifiers_results.jsonl').read_text().splitlines()
    results = [json.loads(line) for line in lines]
    assert len(results) == 5
    table = tabulate_comparison(results, results[0]['config'])
    assert table in (REPORTS / 'benchmark.md').read_text()


def test_pages_say_what_distilled_weights_are_worth():
    lines = (REPORTS / 'distillation_results.jsonl').read_text().splitlines()
    scores = defaultdict(lambda: defaultdict(list))
    for result in map(json.loads, lines):
        found = re.fullmatch(r'(\w+)_hsv-(distilled|lite0)-(7|14|28)e-fast', result['config'])
        shipped = 'enlarged by 8' in result['weights'] or 'lite0' in result['weights']
        if found and shipped:
            data, recipe, epochs = found.groups()
            scores[recipe, epochs][data].append(result[MAP])
    readme, weights = ((REPORTS.parents[1] / name).read_text() for name in ('README.md', WEIGHTS))
    report = (REPORTS / 'distillation.md').read_text()
    for (_, epochs), of_sets in scores.items():
        means = [mean(of_sets[data]) for data in ('fruit', 'bccd', 'cards', 'raccoon')]
        row = ' | '.join(f'{value:.3f}' for value in means)
        seeds = len(of_sets['fruit'])
        assert all(len(values) == seeds for values in of_sets.values())
        assert f'| {epochs} | {seeds} | {row} | {mean(means):.3f} |' in weights
        assert f'{mean(means):.3f}' in report
        if epochs == '14':
            assert f'{mean(means):.3f}' in readme
