import json
import os
import re
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import nn
from two_processes import LAUNCHERS, free_port

ROOT = Path(__file__).resolve().parent

# They start processes and train: at the end none of the processes is left with one of these alone.
SLOW_FILES = (
    'packaging/test_wheel.py',
    'test_training.py',
    'test_precision.py',
    'faults/test_faults.py',
    'distributed/test_distributed.py',
    'swap/test_swap.py',
    'benchmark/test_accuracy.py',
)
FUZZ_EXAMPLES = int(os.environ.get('HADAPTIVE_FUZZ', '25'))
# For the tests that throw altered files at the tools: the same examples each time.
settings.register_profile(
    'fuzz',
    max_examples=FUZZ_EXAMPLES,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

if not torch.cuda.is_available():
    # Triton reads it when a kernel is defined, and then runs it on the CPU.
    os.environ['TRITON_INTERPRET'] = '1'

# Registers what the tests build by its name, where MMDetection is installed; not earlier, as that
# imports Triton.
import mmdet_hadaptive  # noqa: E402, F401
from mmdet_hadaptive.export.product_statistics import (  # noqa: E402
    collect_product_statistics,
    product_bottlenecks,
)
from mmdet_hadaptive.layers import AdaptiveBottleneck, AdaptiveCrossHadamard  # noqa: E402


def pytest_report_header():
    return f'fuzzing: {FUZZ_EXAMPLES} examples a test (HADAPTIVE_FUZZ), the same each time'


def pytest_collection_modifyitems(items):
    missing = {}
    if not torch.cuda.is_available():
        missing['gpu'] = 'needs a CUDA device and torch for it'
    if torch.__version__.startswith('2.5.'):
        missing['dynamo'] = "torch 2.5's exporter dynamo fails here: needs torch 2.6 or later"
    items.sort(key=lambda item: not item.path.as_posix().endswith(SLOW_FILES))
    for item in items:
        for marker, reason in missing.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def real_data() -> Path:
    """The folder with bccd/ and tiny_coco/."""
    folder = os.environ.get('HADAPTIVE_DATA')
    if not folder:
        pytest.skip('set HADAPTIVE_DATA to the folder that holds bccd/ and tiny_coco/')
    return Path(folder).resolve()


@pytest.fixture(scope='session')
def shapes(tmp_path_factory) -> Path:
    """A small shapes data set, in the folder data/shapes of its own working directory."""
    from mmdet_hadaptive.datasets import make_shapes

    return make_shapes(tmp_path_factory.mktemp('work') / 'data' / 'shapes', 16, 8)


@lru_cache
def _train_tiny(task, selection):
    torch.manual_seed(0)
    bottleneck = AdaptiveBottleneck(
        2, 3, AdaptiveCrossHadamard(2, 2, selection=selection), kernel_size=1
    )
    # Hardswish is a square in its middle, from which products can be had as well.
    bottleneck.depthwise.act = nn.Identity()
    # Channels without a mean: their product says nothing about the sign of a sum.
    bottleneck.expansion.norm = nn.BatchNorm2d(2, affine=False)
    net = nn.Sequential(bottleneck, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, steps := 120)

    def draw(count):
        x = torch.rand(count, 2, 1, 1) * 2 - 1
        return x, (x.prod(1) if task == 'product' else x.sum(1)).flatten() > 0

    for _ in range(steps):
        x, wanted = draw(128)
        loss = nn.functional.binary_cross_entropy_with_logits(net(x)[:, 0], wanted.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    net.eval().requires_grad_(False)
    images, wanted = draw(2000)
    with collect_product_statistics(product_bottlenecks(net)) as statistics:
        net(draw(512)[0])
    return net, statistics, lambda net: ((net(images)[:, 0] > 0) == wanted).float().mean().item()


@pytest.fixture(scope='session')
def train_tiny():
    """Trains a classifier of two inputs whose only nonlinearity is a product.

    It takes the task, the sign of the 'product' or of the 'sum' of the inputs, and the selection,
    and returns the network, the statistics of its products, and what measures its accuracy.
    """
    return _train_tiny


@pytest.fixture
def interpreted_kernels():
    """Triton's kernels for ACH, which here run without a GPU."""
    if torch.cuda.is_available():
        pytest.skip('runs where there is no CUDA device; the tests marked gpu run here')
    pytest.importorskip(
        'triton',
        '3.3',
        reason='needs Triton 3.3 or later: it is made for Linux, for torch from 2.7 on',
    )
    from mmdet_hadaptive.ops import expansion_triton

    return expansion_triton


def environment(env):
    # The laboratory is importable from the root of a clone.
    env = {**os.environ, 'OMP_NUM_THREADS': '1', **(env or {})}
    folders = [env.get('PYTHONPATH', ''), str(ROOT)]
    return {**env, 'PYTHONPATH': os.pathsep.join(filter(None, folders))}


def checked(output, returncode, code):
    assert returncode == code, output[-4000:]
    # MMEngine pads its columns.
    return re.sub(' +', ' ', output)


@pytest.fixture(scope='session')
def run():
    """Runs Python in a process of its own and returns its output."""

    def run_python(*args, cwd, code=0, env=None):
        result = subprocess.run(
            [sys.executable, '-W', 'ignore', *map(str, args)],
            cwd=cwd,
            env=environment(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        return checked(result.stdout, result.returncode, code)

    return run_python


@pytest.fixture(scope='session')
def fork():
    """Starts a Python file in a process that has imported MMDetection; returns how to wait for it.

    For what imports itself is not the point.
    """
    server = subprocess.Popen(
        [sys.executable, '-W', 'ignore', ROOT / 'tests/helpers/warm_python.py'],
        env=environment(None),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask(**request):
        print(json.dumps(request), file=server.stdin, flush=True)
        return int(server.stdout.readline())

    def start(*args, cwd, env=None):
        with tempfile.NamedTemporaryFile(delete=False) as file:
            output = Path(file.name)
        process = ask(
            args=list(map(str, args)), cwd=str(cwd), output=str(output), env=environment(env)
        )

        def finish(code=0):
            returncode = ask(wait=process)
            text = output.read_text()
            output.unlink()
            return checked(text, returncode, code)

        return finish

    with server:
        yield start
        server.stdin.close()


@pytest.fixture(scope='session')
def run_warm(fork):
    """Runs a Python file like `run`, and does not wait for MMDetection to be imported."""
    return lambda *args, code=0, **kwargs: fork(*args, **kwargs)(code)


@pytest.fixture
def run_two(fork, request):
    """Runs a Python file in two processes, which find each other, and returns their outputs.

    They import modules beside the test and the helpers of both kinds of tests.
    """
    folders = [str(request.path.parent)]
    folders += [str(ROOT / name) for name in ('tests/helpers', 'research/tests/helpers')]

    def run(launcher, *arguments, cwd, **variables):
        address = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port())
        env = dict(PYTHONPATH=os.pathsep.join(folders), **address, **variables)
        processes = [
            fork(*arguments, cwd=cwd, env=env | LAUNCHERS[launcher](str(rank))) for rank in range(2)
        ]
        return [finish() for finish in processes]

    return run
