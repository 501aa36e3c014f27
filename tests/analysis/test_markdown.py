import pytest

from mmdet_hadaptive.analysis.markdown import markdown_table


def test_table():
    rows = iter([('a|b', 1), ('', 2.5)])
    assert markdown_table(['name', 'number'], rows).splitlines() == [
        '| name | number |',
        '|---|---|',
        r'| a\|b | 1 |',
        '|  | 2.5 |',
    ]


def test_a_row_of_another_length():
    with pytest.raises(ValueError, match=r"must have 2 cells.* got \['a'\]"):
        markdown_table(['name', 'number'], [['a']])
