"""Python that has imported MMDetection already, which takes longer than most of what tests run.

Each line of its input is a request: to run a program in a process forked from this one, which
imports this package itself, or to wait for the end of one. The answer is the number of the process
or its exit status.
"""

import json
import multiprocessing
import os
import runpy
import signal
import sys
from importlib import import_module
from pathlib import Path

MODULES = (
    *(
        f'mmdet.{name}'
        for name in ('apis', 'datasets', 'engine', 'evaluation', 'models', 'visualization')
    ),
)


def run(program, *arguments, cwd, output, env):
    # Nothing may hang forever.
    signal.alarm(600)
    file = os.open(output, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    folders = env.get('PYTHONPATH', '').split(os.pathsep)
    sys.path[:1] = [str(Path(program).resolve().parent), *filter(None, folders)]
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name='__main__')


def main():
    answers = os.fdopen(os.dup(1), 'w', buffering=1)
    # Some libraries print when they are imported.
    os.dup2(2, 1)
    for module in MODULES:
        import_module(module)
    context = multiprocessing.get_context('fork')
    processes = {}
    for line in sys.stdin:
        request = json.loads(line)
        if 'wait' in request:
            process = processes.pop(request['wait'])
            process.join()
            answer = process.exitcode
        else:
            process = context.Process(target=run, args=request.pop('args'), kwargs=request)
            process.start()
            answer = process.pid
            processes[answer] = process
        print(answer, file=answers)


if __name__ == '__main__':
    main()
