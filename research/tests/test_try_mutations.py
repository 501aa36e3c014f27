import pytest

from research.tools.try_mutations import try_defect


def test_a_defect_is_noticed_or_not(tmp_path):
    code = tmp_path / 'numbers_of_test.py'
    code.write_text('ONE = 1\nTWO = 2\n')
    (tmp_path / 'test_numbers_of_test.py').write_text(
        'from numbers_of_test import ONE\n\n\ndef test_one():\n    assert ONE == 1\n'
    )
    defect = dict(
        file='numbers_of_test.py',
        what='',
        tests=['test_numbers_of_test.py'],
        before='ONE = 1',
        after='ONE = 3',
    )
    assert try_defect(tmp_path, defect) == 'test_numbers_of_test.py::test_one'
    assert try_defect(tmp_path, defect | dict(before='TWO = 2', after='TWO = 3')) is None
    assert code.read_text() == 'ONE = 1\nTWO = 2\n'
    with pytest.raises(ValueError, match=r"numbers_of_test.py has 'THREE' 0 times"):
        try_defect(tmp_path, defect | dict(before='THREE'))
    code.write_text('ONE = 2\n')
    with pytest.raises(RuntimeError, match='test_one fails without a defect'):
        try_defect(tmp_path, defect | dict(before='ONE = 2'))
