import re

import pytest

from research.markdown import markdown_table


def test_table():
    rows = iter([('a|b', 1), ('', 2.5)])
    assert markdown_table(['name', 'number'], rows).splitlines() == [
        '| name | number |',
        '|---|---|',
        r'| a\|b | 1 |',
        '|  | 2.5 |',
    ]


@pytest.mark.parametrize('row', [['a'], ['a', '1', '2'], []])
def test_a_row_of_another_length(row):
    with pytest.raises(ValueError, match=f'must have 2 cells.* got {re.escape(str(row))}$'):
        markdown_table(['name', 'number'], [['b', 1], row])
