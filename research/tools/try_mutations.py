"""Puts defects into a copy of the code, one at a time, and says whether the tests notice them.

The file holds one defect in a line, as JSON: the `file`, the text `before` and `after`, the `tests`
that should notice it, and in words `what` it does. `noticed_by` is added: the first test that
fails, or null. A defect that has it is not tried again.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mmdet_hadaptive.utils.files import write_whole

ROOT = Path(__file__).parents[2]
_LEFT_OUT = shutil.ignore_patterns('.git', '.venv*', 'work_dirs', 'build', '__pycache__')
_FAILED = re.compile(r'^(?:FAILED|ERROR) (.+?)(?: - |$)', re.MULTILINE)


def main() -> None:
    """Tries the defects of the file, and writes what came out into it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('file', type=Path, help='the defects (.jsonl)')
    args = parser.parse_args()
    defects = [json.loads(line) for line in args.file.read_text().splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, 'clone')
        shutil.copytree(ROOT, copy, symlinks=True, ignore=_LEFT_OUT)
        for defect in defects:
            if 'noticed_by' not in defect:
                defect['noticed_by'] = try_defect(copy, defect)
                print(f'{defect["noticed_by"] or "NOT NOTICED"}: {defect["what"]}', flush=True)
                write_whole(''.join(json.dumps(entry) + '\n' for entry in defects), args.file)
    noticed = sum(bool(defect['noticed_by']) for defect in defects)
    print(f'{noticed} of {len(defects)} defects are noticed')


def try_defect(root: Path, defect: dict[str, str | list[str]]) -> str | None:
    """Runs the tests of one defect.

    Args:
        root: A copy of the repository. Its file is as before afterwards.
        defect: An entry of the file, see above.

    Returns:
        The first test that fails; None if all of them pass.

    Raises:
        RuntimeError: If that test fails without the defect as well, or none can be run.
        ValueError: If the text is not there exactly once.
    """
    file = root / defect['file']
    text = file.read_text()
    if text.count(defect['before']) != 1:
        raise ValueError(
            f'{defect["file"]} has {defect["before"]!r} {text.count(defect["before"])} times: '
            'it must be there once'
        )
    file.write_text(text.replace(defect['before'], defect['after']))
    try:
        failed = run_tests(root, defect['tests'])
    finally:
        file.write_text(text)
    if failed and run_tests(root, [failed]):
        raise RuntimeError(f'{failed} fails without a defect as well')
    return failed


def run_tests(root: Path, tests: list[str]) -> str | None:
    """Runs tests until one fails.

    Args:
        root: The root of a copy of the repository.
        tests: Files, folders or names of tests, as for pytest.

    Returns:
        The name of the test that fails; None if none does.

    Raises:
        RuntimeError: If they cannot be run.
    """
    environment = {**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, '-m', 'pytest', '-x', '-q', '-p', 'no:cacheprovider', *tests]
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    failed = _FAILED.search(result.stdout)
    if failed is None and result.returncode:
        raise RuntimeError(f'{tests} cannot be run:\n{result.stdout[-2000:]}')
    return failed and failed[1]


if __name__ == '__main__':
    main()
