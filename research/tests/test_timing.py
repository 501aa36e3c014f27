import time

import pytest

from research.timing import measure_in_turn


def test_functions_take_turns():
    calls = []
    seconds = measure_in_turn(
        {'a': lambda: calls.append('a'), 'b': lambda: calls.append('b')}, rounds=3, warmup=2
    )
    assert calls == ['a', 'b'] * 5
    assert {name: len(values) for name, values in seconds.items()} == {'a': 3, 'b': 3}


def test_seconds_of_each_call():
    seconds = measure_in_turn(
        {'long': lambda: time.sleep(0.02), 'short': lambda: None}, rounds=2, warmup=0
    )
    assert min(seconds['long']) >= 0.02 > max(seconds['short'])


@pytest.mark.parametrize(('rounds', 'warmup'), [(0, 1), (1, -1)])
def test_wrong_numbers(rounds, warmup):
    with pytest.raises(ValueError, match=f'got {rounds} and {warmup}'):
        measure_in_turn({}, rounds, warmup)
