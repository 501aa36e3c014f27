import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from research.benchmark import processes
from research.benchmark.processes import ChildProcesses

# Notes its process's id and waits.
WAIT = (
    'import os, pathlib, sys, time\n'
    'pathlib.Path(sys.argv[1], str(os.getpid())).touch()\n'
    'time.sleep(300)\n'
)
# Imports the module by itself, which is quick.
PARENT = f"""
import sys
sys.path.insert(0, {str(Path(processes.__file__).parent)!r})
from processes import ChildProcesses
ChildProcesses().call([sys.executable, *sys.argv[2:]], sys.argv[1])
"""


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def runs(pid):
    try:
        # A process that nobody has waited for yet has ended too.
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def notes(tmp_path):
    """A folder with a file for each process, named by its id; they are ended afterwards."""
    folder = tmp_path / 'pids'
    folder.mkdir()
    yield folder
    for file in folder.iterdir():
        if runs(file.name):
            os.kill(int(file.name), signal.SIGKILL)


def test_status_output_and_environment(tmp_path):
    children, log = ChildProcesses(), tmp_path / 'log'
    code = 'import os, sys; print(sys.argv[1:], os.environ["GREETING"]); sys.exit(3)'
    for _ in range(2):
        assert children.call([sys.executable, '-c', code, 'a b'], log, {'GREETING': 'hello'}) == 3
    assert log.read_text() == "['a b'] hello\n" * 2


def test_commands_are_ended_together_and_no_other_begins(tmp_path, notes):
    children, log, codes = ChildProcesses(), tmp_path / 'log', []
    command = [sys.executable, '-c', WAIT, str(notes)]
    threads = [
        threading.Thread(target=lambda: codes.append(children.call(command, log))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(list(notes.iterdir())) == 2)
    children.terminate()
    for thread in threads:
        thread.join(10)
    assert codes == [-signal.SIGTERM] * 2
    with pytest.raises(RuntimeError, match='the others have been ended'):
        children.call(command, log)


@pytest.mark.skipif(sys.platform != 'linux', reason='Linux ends the children')
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize('count', [1, 2])
def test_commands_end_with_a_process_that_is_killed(tmp_path, notes, number, count):
    script = tmp_path / 'wait.py'
    script.write_text(WAIT)
    torchrun = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={count}']
    launcher = torchrun if count > 1 else []
    parent = subprocess.Popen(
        [sys.executable, '-c', PARENT, tmp_path / 'log', *launcher, script, notes]
    )
    try:
        wait_until(lambda: len(list(notes.iterdir())) == count)
        parent.send_signal(number)
        assert parent.wait(10) == -number
    finally:
        parent.kill()
    wait_until(lambda: not any(runs(file.name) for file in notes.iterdir()))
