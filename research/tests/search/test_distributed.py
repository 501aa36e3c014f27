from pathlib import Path

import torch
from two_processes import assert_equal

HERE = Path(__file__).parent


def test_searches_draw_the_same_and_end_equal(tmp_path, run_two):
    script = HERE / 'tiny_search_training.py'
    outputs = run_two('pytorch', script, True, cwd=tmp_path, CUDA_VISIBLE_DEVICES='')
    assert not any('refused' in output for output in outputs)
    first, second = (
        torch.load(tmp_path / f'rank_{rank}.result', weights_only=True) for rank in range(2)
    )
    assert first['draws'] == second['draws']
    assert len(set(map(tuple, first['draws']))) > 3
    assert first['history'] == second['history']
    assert not torch.isin(first['random'], second['random']).any()
    # One image of seven is there twice, so that each process has four.
    assert len({*first['images'], *second['images']}) == 7
    assert_equal(first['state'], second['state'])
    assert first['state']['backbone.logits'].abs().max() > 0.1


def test_searches_need_wrappers_that_find_unused_parameters(tmp_path, run_two):
    script = HERE / 'tiny_search_training.py'
    outputs = run_two('pytorch', script, False, cwd=tmp_path, CUDA_VISIBLE_DEVICES='')
    assert all('find_unused_parameters=True' in output for output in outputs)
