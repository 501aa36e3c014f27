"""Commands that end with the process that started them.

This file is also the program that each of them begins as, so that it imports next to nothing.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock

# From linux/prctl.h.
_PR_SET_PDEATHSIG = 1


class ChildProcesses:
    """Runs commands, from several threads if need be, and can end all of them.

    On Linux a command gets SIGTERM as soon as this process has ended, even if that was killed;
    torchrun hands it on to what it started. Elsewhere commands outlive a process that is killed.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._terminated = False

    def call(
        self, command: Sequence[str], log: str | Path, env: Mapping[str, str] | None = None
    ) -> int:
        """Runs a command to its end.

        Args:
            command: The path of the program, and its arguments.
            log: The file to which its output is appended.
            env: The environment of the process; by default that of this process.

        Returns:
            Its exit status, or the negative number of the signal that ended it.

        Raises:
            RuntimeError: If :meth:`terminate` has been called before.
        """
        # Isolated and without site-packages: that starts at once.
        start = [sys.executable, '-I', '-S', __file__, str(os.getpid())]
        with Path(log).open('a') as file:
            with self._lock:
                if self._terminated:
                    raise RuntimeError(f'{command[0]} is not run: the others have been ended')
                process = subprocess.Popen(
                    [*start, *command], env=env, stdout=file, stderr=subprocess.STDOUT
                )
                self._running.add(process)
            try:
                return process.wait()
            finally:
                with self._lock:
                    self._running.remove(process)

    def terminate(self) -> None:
        """Sends SIGTERM to all commands, and lets no other one start."""
        with self._lock:
            self._terminated = True
            for process in self._running:
                process.terminate()


def _become(parent: int, command: Sequence[str]) -> None:
    """Replaces this process by a command that ends with its parent."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # Otherwise the parent had ended before that.
    if os.getppid() == parent:
        os.execv(command[0], command)


if __name__ == '__main__':
    _become(int(sys.argv[1]), sys.argv[2:])
