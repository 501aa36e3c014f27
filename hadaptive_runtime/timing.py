"""Times exported detectors in turn, each in its own process.

Each process has one runtime and its threads, like a user's program. If one crashes, the others go
on. Each process runs this file.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

import numpy as np

from .errors import ExportError
from .loading import load_exported

_WARMUP = 3


def time_in_turn(
    files: Mapping[str, Path],
    inputs: Mapping[str, np.ndarray],
    threads: int,
    rounds: int,
    whole: bool = True,
    failures: dict[str, ExportError] | None = None,
    cpu_time: bool = False,
) -> dict[str, list[float]]:
    """Times exported detectors in turn, so that a slow phase of the machine slows all of them.

    In its turn, a detector runs twice, and the second run counts. Its caches and threads are then
    those of a detector that sees one image after the other.

    Args:
        files: The models by name, as :func:`~hadaptive_runtime.load_exported` takes them.
        inputs: The prepared images by name, shape (1, 3, H, W), float32.
        threads: The number of threads.
        rounds: Timed calls of each, at least 1.
        whole: Whether the selection of detections counts, if it is not a part of the network.
        failures: If given, files that cannot run are left out, and this dict gets the reasons by
            name.
        cpu_time: Whether to measure the CPU time of all threads. On a busy machine it is more
            exact than the clock.

    Returns:
        The seconds of each round, by name.

    Raises:
        ExportError: If a file cannot run, or if a process ends unexpectedly. It names the signal.
        ValueError: If ``rounds`` is below 1.
    """
    if rounds < 1:
        raise ValueError(f'rounds must be at least 1, got {rounds}')
    seconds: dict[str, list[float]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        processes = {}
        for number, (name, file) in enumerate(files.items()):
            stem = folder / str(number)
            np.save(stem.with_suffix('.npy'), inputs[name])
            arguments = [threads, int(whole), int(cpu_time)]
            process = stack.enter_context(_Process(file, stem, arguments))
            # One after the other, so that they do not need their peak memory at the same time.
            try:
                process.read()
            except ExportError as error:
                if failures is None:
                    raise
                failures[name] = error
            else:
                processes[name], seconds[name] = process, []
        for _ in range(rounds):
            for name, process in processes.items():
                seconds[name].append(process.run())
    return seconds


def describe_exit(code: int) -> str:
    """Describes how a process ended, by its signal or its exit status.

    Args:
        code: The exit status, or the negative number of the signal that ended the process.
    """
    if code >= 0:
        return f'exit status {code}'
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f'signal {-code}'


class _Process:
    """Runs a detector in a process that ends with the context."""

    def __init__(self, file: Path, stem: Path, options: list[int]) -> None:
        self._file = file
        package = Path(__file__).resolve().parent
        paths = [str(package.parent), os.environ.get('PYTHONPATH', '')]
        command = [sys.executable, '-m', f'{package.name}.{Path(__file__).stem}']
        arguments = [file, stem.with_suffix('.npy'), *options]
        self._errors = stem.with_suffix('.log')
        with self._errors.open('w') as errors:
            self._process = subprocess.Popen(
                [*command, *map(str, arguments)],
                env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def __enter__(self) -> '_Process':
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self) -> float:
        """Returns the seconds of a call."""
        # If the process has ended, reading says how.
        with suppress(BrokenPipeError):
            print(file=self._process.stdin, flush=True)
        return float(self.read())

    def read(self) -> str:
        """Returns the next line from the process."""
        answer = self._process.stdout.readline().strip()
        if answer.startswith('error: '):
            raise ExportError(answer.removeprefix('error: '))
        if not answer:
            ending = describe_exit(self._process.wait())
            lines = self._errors.read_text(errors='replace').strip().splitlines()
            said = f', after it said: {lines[-1][:200]}' if lines else ''
            raise ExportError(
                f'{self._file}: the process that timed it ended ({ending}{said}); leave the file '
                'out, or run it alone'
            )
        return answer


def _serve(
    file: Path,
    inputs: np.ndarray,
    threads: int,
    whole: bool,
    clock: Callable[[], float],
    answers: TextIO,
) -> None:
    """Loads a detector, and runs it once for each line of the input."""
    try:
        detector = load_exported(file, threads)
    except (ExportError, OSError) as error:
        print(f'error: {error}', file=answers)
        return
    run = detector.detect if whole else detector.session.run
    for _ in range(_WARMUP):
        run(inputs)
    print('ready', file=answers)
    for _ in sys.stdin:
        run(inputs)
        start = clock()
        run(inputs)
        print(clock() - start, file=answers)


def _main() -> None:
    file, inputs, *options = sys.argv[1:]
    threads, whole, cpu_time = map(int, options)
    clock = time.process_time if cpu_time else time.perf_counter
    answers = os.fdopen(os.dup(1), 'w', buffering=1)
    # Some runtimes print to the standard output.
    os.dup2(2, 1)
    _serve(Path(file), np.load(inputs), threads, bool(whole), clock, answers)


if __name__ == '__main__':
    _main()
