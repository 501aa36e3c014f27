from pathlib import Path

from mmengine.utils import get_installed_path

from mmdet_hadaptive.benchmark import swap_sweep


def test_a_sweep_tells_apart_and_goes_on(tmp_path, monkeypatch):
    chosen = ['yolof', 'ocsort']
    monkeypatch.setattr(swap_sweep, 'folders', lambda: [root / name for name in chosen])
    root = Path(get_installed_path('mmdet')) / '.mim' / 'configs'
    results = tmp_path / 'results.jsonl'
    outcomes = list(swap_sweep.sweep(results, 'small', 64, 300))
    assert [outcome.status for outcome in outcomes] == ['works', 'not applicable']
    assert outcomes[0].after < outcomes[0].before
    swap_sweep.write_table(outcomes, tmp_path / 'swap_sweep.md', 'small', 'the command', 'here')
    page = (tmp_path / 'swap_sweep.md').read_text()
    assert '1 works; 1 not applicable; 2 of 2 folders.' in page
    assert '| yolof | yolof_r50-c5_8xb8-1x_coco.py | works |' in page
    # Finished folders are not done again; nothing new could finish in this time.
    chosen.append('retinanet')
    again = list(swap_sweep.sweep(results, 'small', 64, 0.01))
    assert again[:2] == outcomes
    assert again[2].remark == 'not finished after 0.01 s'
    assert len(results.read_text().splitlines()) == 3


def test_the_config_that_stands_for_a_folder():
    folders = {path.name: path for path in swap_sweep.folders()}
    assert len(folders) > 100
    assert swap_sweep.representative(folders['faster_rcnn']) == 'faster-rcnn_r50_fpn_1x_coco.py'
    # Among trackers, a detector; among backbones that the neck calls, another.
    assert swap_sweep.representative(folders['strongsort']).startswith('yolox')
    assert 'sac' in swap_sweep.representative(folders['detectors'])
    assert swap_sweep.representative(folders['centernet']).startswith('centernet_r18')
