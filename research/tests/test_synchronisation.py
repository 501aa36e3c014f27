"""Nothing of ours waits for a device in an ordinary iteration.

Reading a tensor's value waits until a GPU has computed it. On a CPU the same reads can be counted.
"""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import HOOKS
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import MessageHub
from torch.utils._python_dispatch import TorchDispatchMode

from mmdet_hadaptive.engine import StopOnInvalidLossHook
from mmdet_hadaptive.models import HadaptiveNet
from research.analysis.selection_hook import SelectionHook
from research.search import ArchitectureSearchHook

READ = torch.ops.aten._local_scalar_dense.default
INTERVAL = 3


class CountReads(TorchDispatchMode):
    """Counts ``item()``, ``bool()`` and the like, which are all one operation, and copies."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.count = 0
        for name in ('cpu', 'numpy', 'tolist'):
            method = getattr(torch.Tensor, name)
            monkeypatch.setattr(torch.Tensor, name, self.counted(method))

    def counted(self, method):
        def call(*args, **kwargs):
            self.count += 1
            return method(*args, **kwargs)

        return call

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is READ
        return func(*args, **(kwargs or {}))


@pytest.fixture
def reads(monkeypatch):
    with CountReads(monkeypatch) as counter:
        yield counter


def test_reads_are_counted(reads):
    x = torch.ones(2)
    x[0].item(), bool(x[0] > 0), x.cpu(), x.tolist(), x.numpy()
    assert reads.count == 5


def test_iterations_read_no_value(monkeypatch):
    model = HadaptiveNet('small', out_indices=(3,))
    log = MessageHub.get_instance('reads')
    runner = SimpleNamespace(
        model=model, iter=0, epoch=0, message_hub=log, visualizer=SimpleNamespace()
    )
    written = []
    runner.visualizer.add_scalars = lambda scalars, step: written.append(step)
    selection, invalid = SelectionHook(interval=INTERVAL), StopOnInvalidLossHook()
    selection.before_train_epoch(runner)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, foreach=True)
    counts = []
    for runner.iter in range(2 * INTERVAL):
        # As MMEngine does, before the hooks: it reads the terms of the loss.
        log.update_scalar('train/loss', 1.0)
        with monkeypatch.context() as patch, CountReads(patch) as reads:
            loss = model(torch.rand(2, 3, 64, 64))[0].square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for hook in (invalid, selection):
                hook.after_train_iter(runner, runner.iter, outputs=dict(loss=loss))
            counts.append(reads.count)
    ordinary = [n for i, n in enumerate(counts, 1) if i % INTERVAL]
    assert ordinary == [0] * len(ordinary)
    # Where scalars are written they are read.
    assert written == [INTERVAL, 2 * INTERVAL]
    assert min(counts[INTERVAL - 1 :: INTERVAL]) > 0


def test_no_other_hook_of_ours_does_anything_in_an_iteration():
    hooks = set()
    root = Path(__file__).parents[2]
    for path in [*root.glob('configs/*/*.py'), *root.glob('research/configs/*/*.py')]:
        # Those of the other folders are inherited there, or train no detectors.
        if path.parent.name not in ('baselines', 'pretrain'):
            config = Config.fromfile(path)
            hooks |= {hook.type for hook in (*config.custom_hooks, config.default_hooks.checkpoint)}
    ours = {HOOKS.get(name) for name in hooks}
    ours = {hook for hook in ours if hook.__module__.startswith(('mmdet_hadaptive.', 'research.'))}
    # Each iteration of a search waits for the device anyway: it computes what was drawn.
    ours.remove(ArchitectureSearchHook)
    assert len(ours) == 7
    active = {
        hook
        for hook in ours
        for name in ('before_train_iter', 'after_train_iter')
        # MMEngine's writes checkpoints.
        if getattr(hook, name) not in (getattr(Hook, name), getattr(CheckpointHook, name))
    }
    assert active == {SelectionHook, StopOnInvalidLossHook}
