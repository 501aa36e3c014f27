import importlib
import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmdet_hadaptive.runtime import safe_loading


@pytest.fixture(autouse=True)
def allow_again():
    # Whenever the fork of MMEngine has loaded a file, it forbids what it had allowed for that.
    importlib.reload(safe_loading)


class Attack:
    """Runs a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def saved(path, content):
    torch.save(content, path)
    return torch.load(path, weights_only=True)


def test_what_mmengine_saves_is_read(tmp_path):
    buffer = HistoryBuffer()
    for value in (3.0, 1.0):
        buffer.update(value)
    content = dict(
        state_dict=dict(weight=torch.ones(2)),
        message_hub=dict(
            log_scalars=dict(loss=buffer),
            runtime_info=dict(eta=np.float64(1.5), epoch=np.int64(3), done=np.bool_(True)),
        ),
    )
    loaded = saved(tmp_path / 'a.pth', content)['message_hub']
    assert loaded['log_scalars']['loss'].statistics('min') == 1.0
    assert loaded['log_scalars']['loss'].statistics('mean') == 2.0
    assert loaded['runtime_info'] == dict(eta=1.5, epoch=3, done=True)


@pytest.mark.parametrize(
    'attack',
    [
        Attack(os.system, 'touch attacked'),
        Attack(eval, "open('attacked', 'w')"),
        Attack(getattr, np.ndarray, 'tofile'),
        Attack(getattr, HistoryBuffer, '__init__'),
        Attack(getattr, HistoryBuffer(), 'min'),
    ],
    ids=['os.system', 'eval', 'getattr of an array', 'getattr of a function', 'getattr of self'],
)
def test_malicious_pickles_stay_refused(tmp_path, monkeypatch, attack):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}, meta=attack), 'evil.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load('evil.pth')
    assert not (tmp_path / 'attacked').exists()
