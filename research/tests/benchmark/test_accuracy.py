import argparse
import json
import re
import runpy
import sys
import time
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from short_training import SHORT_TRAINING

from mmdet_hadaptive.utils.metrics import MAP, MAP_50, METRICS
from research.benchmark import accuracy
from research.benchmark.accuracy import (
    Run,
    data_root_options,
    tabulate_comparison,
    train_all,
)
from research.benchmark.pretrained_options import pretrained_options
from research.benchmark.processes import ChildProcesses

ROOT = Path(__file__).parents[3]
SHAPES = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'


def test_trains_evaluates_and_does_not_repeat(shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(shapes.parents[1])
    runs = [Run(SHAPES, 3, SHORT_TRAINING)]
    (result,) = train_all(runs, tmp_path)
    assert (result['config'], result['seed'], result['epochs']) == (SHAPES.stem, 3, 1)
    assert 0 <= result['coco/bbox_mAP'] <= result['coco/bbox_mAP_50'] <= 1
    assert json.loads((tmp_path / 'results.jsonl').read_text()) == result
    work_dir = tmp_path / runs[0].name
    log = (work_dir / 'train.log').read_text()
    assert re.search(r'seed: 3\b', log)

    # The recipe is made for another batch size than 4.
    base = Config.fromfile(SHAPES).auto_scale_lr.base_batch_size
    assert f'Scaling the original LR by {4 / base}' in log

    assert train_all(runs, tmp_path) == [result]
    assert (work_dir / 'train.log').read_text() == log

    # Without its result, a finished training is resumed, which trains nothing, and evaluated.
    (tmp_path / 'results.jsonl').unlink()
    commands, paths = [], []

    def call(self, command, log, environment):
        commands.append(command)
        paths.append(environment['PYTHONPATH'])

    monkeypatch.setattr(ChildProcesses, 'call', call)
    monkeypatch.delenv('PYTHONPATH', raising=False)
    assert train_all(runs, tmp_path) == [result]
    assert paths == [str(ROOT)] * 2
    training, test = commands
    assert {str(ROOT / 'tools/train.py'), '--resume', str(work_dir)} <= set(training)
    assert {str(ROOT / 'tools/test.py'), str(work_dir / 'epoch_1.pth')} <= set(test)


def test_a_failed_training_names_its_log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        RuntimeError, match=r'ended with status 1, see .*train\.log: .*check_dataset'
    ):
        train_all([Run(SHAPES, 0)], tmp_path)
    assert not (tmp_path / 'results.jsonl').exists()


# Stands in for Python: training and testing are a matter of milliseconds, except for configs that
# are called otherwise.
PYTHON = f"""#!{sys.executable} -IS
import os, sys, time
from pathlib import Path
if sys.argv[1] == '-I':
    os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])
tool, config = sys.argv[1:3]
work_dir = Path(sys.argv[sys.argv.index('--work-dir') + 1])
if Path(tool).name == 'test.py':
    (work_dir / 'now').mkdir(parents=True)
    scores = '{{"coco/bbox_mAP": 0.5, "coco/bbox_mAP_50": -1}}'
    if 'classifier' in config:
        scores = '{{"accuracy/top1": 32.5, "accuracy/top5": 60.0}}'
    (work_dir / 'now/now.json').write_text(scores)
elif 'endless' in config:
    Path('endless').write_text(str(os.getpid()))
    time.sleep(60)
elif 'failing' in config:
    for _ in range(1000):
        if Path('results.jsonl').exists() and Path('endless').exists():
            break
        time.sleep(0.01)
    sys.exit('out of luck')
"""


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    """Makes runs of configs with little in them, which are trained by the stand-in."""
    python = tmp_path / 'python'
    python.write_text(PYTHON)
    python.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(python))
    monkeypatch.chdir(tmp_path)

    def make(name, options=(), content='load_from = None'):
        config = tmp_path / f'{name}.py'
        config.write_text(f'train_cfg = dict(max_epochs=1)\n{content}\n')
        return Run(config, 0, tuple(options))

    return make


def test_a_failure_ends_the_others_and_keeps_what_is_finished(make_run, tmp_path):
    names = ('finished', 'endless', 'failing', 'late')
    start = time.monotonic()
    with pytest.raises(
        RuntimeError, match=r'status 1, see .*failing_seed0.train\.log: out of luck'
    ):
        train_all([make_run(name) for name in names], tmp_path, jobs=2)
    assert time.monotonic() - start < 30
    (line,) = (tmp_path / 'results.jsonl').read_text().splitlines()
    assert json.loads(line)['config'] == 'finished'
    assert not (tmp_path / 'late_seed0').exists()
    assert not Path('/proc', (tmp_path / 'endless').read_text()).exists()


def test_finished_runs_whose_names_have_a_dot_are_not_repeated(make_run, tmp_path):
    runs = [make_run(f'lr0.00{digit}') for digit in (1, 2)]
    first = train_all(runs, tmp_path)
    assert [result['config'] for result in first] == ['lr0.001', 'lr0.002']
    # The stand-in fails where it has tested before.
    assert train_all(runs, tmp_path) == first
    assert len((tmp_path / 'results.jsonl').read_text().splitlines()) == 2


def test_programs_that_share_a_folder_keep_each_others_results(make_run, tmp_path, monkeypatch):
    first, second = make_run('first'), make_run('second')
    train = accuracy._train

    def train_second_meanwhile(*args):
        monkeypatch.setattr(accuracy, '_train', train)
        train_all([second], tmp_path)
        return train(*args)

    monkeypatch.setattr(accuracy, '_train', train_second_meanwhile)
    train_all([first], tmp_path)
    lines = (tmp_path / 'results.jsonl').read_text().splitlines()
    assert {json.loads(line)['config'] for line in lines} == {'first', 'second'}


def test_classifiers(make_run, tmp_path, capsys):
    results = train_all([make_run('classifier'), make_run('other_classifier')], tmp_path)
    assert results[0]['accuracy/top1'] == 0.325
    assert 'classifier_seed0: top-1 0.325' in capsys.readouterr().out
    table = tabulate_comparison(results, 'classifier')
    assert table.startswith('| config | seeds | top-1 | top-5 | difference in top-1 |')
    assert '| classifier | 1 | 0.325 | 0.600 |  |' in table
    assert '| other_classifier | 1 | 0.325 | 0.600 | +0.000 |' in table


def test_no_object_detected_at_all(make_run, tmp_path):
    (result,) = train_all([make_run('a')], tmp_path)
    assert [result[metric] for metric in METRICS] == [0.5, 0, 0]


@pytest.mark.parametrize('finished', [True, False])
def test_another_training_of_the_same_name_is_refused(make_run, tmp_path, monkeypatch, finished):
    path = '/here/weights.pth'
    run = make_run('a', ['x=1'], f'load_from = {path!r}\nz = dict(p=1, q=2)')
    results = train_all([run], tmp_path)
    if not finished:
        # As if it had been interrupted.
        (tmp_path / 'results.jsonl').unlink()
    begun = tmp_path / ('results.jsonl' if finished else 'a_seed0/run.json')

    def refused(what, *args, **kwargs):
        message = rf'{begun} is about another training of a with seed 0: {what}\. Choose another'
        with pytest.raises(ValueError, match=message):
            train_all(*args, folder=tmp_path, **kwargs)

    digest = r'config_sha256 is \w{64}, there it is \w{64}'
    refused(digest, [make_run('a', ['x=1'], f'load_from = {path!r}\ny = 1')])
    refused(rf"options is \['x=2'\], there it is \['x=1'\]; {digest}", [make_run('a', ['x=2'])])
    run = make_run('a', ['x=1'], f'load_from = {path!r}\nz = dict(p=1, q=2)')
    refused('processes is 2, there it is 1', [run], processes=2)
    with monkeypatch.context() as patch:
        patch.setattr(accuracy, 'installed_versions', lambda: dict(torch='1.0'))
        refused(r'versions is .*1\.0.*, there it is .*', [run])
    # The same file elsewhere, and the order of the keys, change nothing.
    other = make_run('a', ['x=1'], "z = dict(q=2, p=1)\nload_from = '/there/weights.pth'")
    if finished:
        assert train_all([other], tmp_path) == results
    record = json.loads(begun.read_text())
    for key in ('config_sha256', 'versions', 'processes'):
        del record[key]
    begun.write_text(json.dumps(record) + '\n')
    refused(r'processes is 1, there it is None; config_sha256 .*; versions .*', [run])


def test_table():
    values = {('a', 0): 0.5, ('a', 1): 0.6, ('b', 0): 0.53, ('b', 1): 0.61, ('c', 1): 0.4}
    results = [
        {'config': config, 'seed': seed, 'coco/bbox_mAP': v, 'coco/bbox_mAP_50': v + 0.1}
        for (config, seed), v in values.items()
    ]
    rows = tabulate_comparison(results, 'a').splitlines()[2:]
    assert rows == [
        '| a | 2 | 0.550 ± 0.071 | 0.650 ± 0.071 |  |',
        '| b | 2 | 0.570 ± 0.057 | 0.670 ± 0.057 | +0.020 ± 0.014 |',
        '| c | 1 | 0.400 | 0.500 | -0.200 |',
    ]


def overridden(path, options):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    config = Config.fromfile(path)
    config.merge_from_dict(parser.parse_args(['--cfg-options', *options]).cfg_options)
    return config


@pytest.mark.parametrize(
    'name',
    ['configs/ssdlite/ssdlite_hadaptive-s', 'research/configs/baselines/ssdlite_mobilenetv2'],
)
def test_data_elsewhere(name):
    path = ROOT / f'{name}_8xb24-600e_coco.py'
    config = overridden(path, data_root_options(path, '/elsewhere'))
    assert 'data/coco' not in config.pretty_text
    assert config.val_evaluator.ann_file == '/elsewhere/annotations/instances_val2017.json'
    assert config.train_dataloader.dataset.dataset.data_root == '/elsewhere'
    unchanged = Config.fromfile(path)
    assert config.model == unchanged.model
    assert config.train_dataloader.dataset.dataset.ann_file == (
        unchanged.train_dataloader.dataset.dataset.ann_file
    )


@pytest.mark.parametrize(
    'name',
    ['configs/ssdlite/ssdlite_hadaptive-s', 'research/configs/baselines/ssdlite_mobilenetv2'],
)
def test_start_from_a_pretrained_backbone(name, tmp_path):
    path = ROOT / f'{name}_8xb24-600e_coco.py'
    config = Config.fromfile(path)
    init_default_scope('mmdet')
    source = MODELS.build(config.model)
    checkpoint = tmp_path / 'classifier.pth'
    torch.save({'state_dict': source.state_dict()}, checkpoint)
    started = MODELS.build(overridden(path, pretrained_options(config, checkpoint)).model)
    started.init_weights()
    for key, value in source.backbone.state_dict().items():
        assert torch.equal(started.backbone.state_dict()[key], value), key


def test_backbones_of_timm_load_its_weights():
    path = ROOT / 'research/configs/baselines/ssdlite_starnet-s1_8xb24-600e_coco.py'
    options = pretrained_options(Config.fromfile(path), 'unused.pth')
    assert overridden(path, options).model.backbone.pretrained is True


def test_suites_name_configs_that_exist():
    suites = runpy.run_path(str(ROOT / 'research/tools/run_benchmark.py'))['SUITES']
    for names, seeds in suites.values():
        assert seeds
        assert len(set(names)) == len(names)
        for name in names:
            assert (ROOT / name).is_file(), name


def test_the_tool_hands_on_what_the_command_line_says(monkeypatch, tmp_path, capsys):
    calls = []

    def train(runs, *arguments):
        calls.append((runs, *arguments))
        return [{'config': r.config.stem, 'seed': r.seed, MAP: 0.5, MAP_50: 0.75} for r in runs]

    monkeypatch.setattr('research.benchmark.accuracy.train_all', train)
    command = ['run_benchmark.py', '--suite', 'bccd', '--configs', 'mobilenetv2', 'hadaptive-s']
    command += ['--cfg-options', 'a=1', '--data-root', '/elsewhere', '--jobs', 3, '--gpus', 2]
    monkeypatch.setattr(sys, 'argv', list(map(str, [*command, '--work-dir', tmp_path])))
    runpy.run_path(str(ROOT / 'research/tools/run_benchmark.py'), run_name='__main__')
    ((runs, folder, jobs, gpus),) = calls
    assert (folder, jobs, gpus) == (tmp_path / 'bccd', 3, 2)
    names = [f'ssdlite_{n}_bccd' for n in ('hadaptive-s', 'hadaptive-s-ir', 'mobilenetv2')]
    assert [(run.config.stem, run.seed) for run in runs] == [(n, s) for s in (0, 1) for n in names]
    for run in runs:
        assert run.options[0] == 'a=1'
        assert 'data_root=/elsewhere' in run.options
    table = capsys.readouterr().out
    # The first is what the others are compared with.
    assert '| ssdlite_hadaptive-s_bccd | 2 | 0.500 ± 0.000 | 0.750 ± 0.000 |  |' in table
    assert '| ssdlite_mobilenetv2_bccd | 2 | 0.500 ± 0.000 | 0.750 ± 0.000 | +0.000' in table


def test_parts_of_names_that_no_config_has(monkeypatch, capsys):
    words = ['run_benchmark.py', '--suite', 'coco-ssdlite', '--configs', 'mobilenetv9']
    monkeypatch.setattr(sys, 'argv', words)
    with pytest.raises(SystemExit, match='2'):
        runpy.run_path(str(ROOT / 'research/tools/run_benchmark.py'), run_name='__main__')
    assert '--configs mobilenetv9: the suite coco-ssdlite has none' in capsys.readouterr().err
