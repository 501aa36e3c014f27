import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.utils import get_installed_path

from mmdet_hadaptive.swap import SmokeTestError
from research.benchmark import swap_sweep


def test_a_sweep_tells_apart_and_resumes(tmp_path, monkeypatch):
    chosen = ['yolof', 'ocsort']
    monkeypatch.setattr(swap_sweep, 'list_folders', lambda: [root / name for name in chosen])
    root = Path(get_installed_path('mmdet')) / '.mim' / 'configs'
    results = tmp_path / 'new' / 'results.jsonl'
    outcomes = list(swap_sweep.sweep(results, 'small', 64, 300))
    assert [outcome.status for outcome in outcomes] == ['works', 'not applicable']
    assert outcomes[0].after < outcomes[0].before
    swap_sweep.write_table(outcomes, tmp_path / 'swap_sweep.md', 'small', 'the command', 'here')
    page = (tmp_path / 'swap_sweep.md').read_text()
    assert page.startswith("# In which of MMDetection's detectors")
    assert '**Answer.** 2 of 2 folders were tried. works: 1, not applicable: 1.' in page
    assert '| yolof | yolof_r50-c5_8xb8-1x_coco.py | works |' in page
    # Finished folders are not done again; nothing new could finish in this time.
    chosen.append('retinanet')
    again = list(swap_sweep.sweep(results, 'small', 64, 0.01))
    assert again[:2] == outcomes
    assert again[2].remark == 'not finished after 0.01 s'
    assert len(results.read_text().splitlines()) == 3


@pytest.mark.parametrize('name', ['mmdet', 'torch', 'mmdet_hadaptive'])
def test_results_of_other_versions_are_not_reused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(swap_sweep, 'list_folders', lambda: [Path('atss')])
    monkeypatch.setattr(swap_sweep, 'choose_config', lambda folder: 'atss.py')
    tried = []

    def try_config(context, folder, config, *settings):
        tried.append(folder.name)
        return swap_sweep.Outcome(folder.name, config, swap_sweep.WORKS, before=2, after=1)

    monkeypatch.setattr(swap_sweep, '_try', try_config)
    results = tmp_path / 'results.jsonl'
    first = list(swap_sweep.sweep(results, 'small', 64, 1))
    assert list(swap_sweep.sweep(results, 'small', 64, 1)) == first
    assert tried == ['atss']
    record = json.loads(results.read_text())
    record['versions'][name] = '0.0.1'
    results.write_text(json.dumps(record) + '\n')
    assert list(swap_sweep.sweep(results, 'small', 64, 1)) == first
    assert tried == ['atss', 'atss']
    # The old ones stay: they are results of that version.
    lines = results.read_text().splitlines()
    assert [json.loads(line)['versions'][name] == '0.0.1' for line in lines] == [True, False]


def test_an_interrupted_write_keeps_the_results(tmp_path, monkeypatch):
    monkeypatch.setattr(swap_sweep, 'list_folders', lambda: [Path('a'), Path('b')])
    monkeypatch.setattr(swap_sweep, 'choose_config', lambda folder: 'c.py')
    monkeypatch.setattr(
        swap_sweep,
        '_try',
        lambda context, folder, name, *_: swap_sweep.Outcome(folder.name, name, 'works'),
    )
    results = tmp_path / 'results.jsonl'
    outcomes = swap_sweep.sweep(results, 'small', 64, 1)
    next(outcomes)
    before = results.read_text()

    def full(descriptor):
        raise OSError('No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match=r'results\.jsonl'):
        next(outcomes)
    assert results.read_text() == before


def test_killed_sweeps_leave_no_process(tmp_path):
    config = tmp_path / 'folder' / 'slow.py'
    config.parent.mkdir()
    # A config is a program: this one runs for ten minutes where the sweep tries it.
    config.write_text(
        'import time\n\nprint("begun", flush=True)\ntime.sleep(600)\nmodel = dict()\n'
    )
    program = tmp_path / 'program.py'
    program.write_text(
        'from pathlib import Path\n'
        'from research.benchmark import swap_sweep\n'
        'if __name__ == "__main__":\n'
        '    swap_sweep.list_folders = lambda: [Path("folder").resolve()]\n'
        '    swap_sweep.choose_config = lambda folder: "slow.py"\n'
        '    list(swap_sweep.sweep(Path("results.jsonl"), "small", 64, 600))\n'
    )
    sweep = subprocess.Popen(
        [sys.executable, '-W', 'ignore', program], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    # Its processes hold the same output: it ends when the last of them is gone.
    for line in sweep.stdout:
        if 'begun' in line:
            break
    sweep.send_signal(signal.SIGKILL)
    sweep.communicate(timeout=60)


def test_the_config_that_stands_for_a_folder():
    folders = {path.name: path for path in swap_sweep.list_folders()}
    assert len(folders) > 100
    assert swap_sweep.choose_config(folders['faster_rcnn']) == 'faster-rcnn_r50_fpn_1x_coco.py'
    # Among trackers, a detector; among backbones that the neck calls, another.
    assert swap_sweep.choose_config(folders['strongsort']).startswith('yolox')
    assert 'sac' in swap_sweep.choose_config(folders['detectors'])
    assert swap_sweep.choose_config(folders['centernet']).startswith('centernet_r18')


@pytest.mark.parametrize(
    ('theirs', 'status'),
    [
        ('an error', swap_sweep.SOURCE_FAILS),
        ('another error', swap_sweep.FAILS),
        (None, swap_sweep.FAILS),
    ],
)
def test_only_the_same_error_is_the_fault_of_the_source(monkeypatch, theirs, status):
    def fail(*arguments):
        raise SmokeTestError('an error')

    def fail_too(*arguments):
        if theirs:
            raise SmokeTestError(theirs)

    monkeypatch.setattr(swap_sweep, 'swap_backbone', fail)
    monkeypatch.setattr(swap_sweep, 'load_source', lambda source: None)
    monkeypatch.setattr(swap_sweep, 'smoke_test', fail_too)
    answers = []
    swap_sweep._work(SimpleNamespace(send=answers.append), 'source.py', 'small', 64)
    assert answers == [(status, 'an error')]
