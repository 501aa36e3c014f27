import io
import os
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from mmdet_hadaptive.utils import safe_loading


@pytest.fixture(autouse=True)
def allow_again():
    # Whenever the fork of MMEngine has loaded a file, it forbids what it had allowed for that.
    safe_loading.allow_checkpoints()


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


def test_files_are_read_after_others_have_forbidden_it(tmp_path):
    torch.save(dict(value=np.float64(1.5)), tmp_path / 'a.pth')
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        assert safe_loading.read_checkpoint(tmp_path / 'a.pth') == dict(value=1.5)
    finally:
        torch.serialization.add_safe_globals(allowed)


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
        torch.load('evil.pth', weights_only=True)
    assert not (tmp_path / 'attacked').exists()


def whole_checkpoint(as_zip=True):
    buffer = HistoryBuffer()
    buffer.update(3.0)
    content = dict(
        meta=dict(epoch=3, seed=0),
        state_dict={f'layer{i}.weight': torch.arange(40.0) + i for i in range(3)},
        message_hub=dict(log_scalars=dict(loss=buffer), runtime_info=dict(eta=np.float64(1.5))),
    )
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=as_zip)
    return file.getvalue()


@st.composite
def altered(draw, content):
    """A file with some bytes altered, or its end missing."""
    content = bytearray(content)
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(content) - 1))
        new = draw(st.binary(min_size=1, max_size=40))
        content[start : start + len(new)] = new
    return bytes(content[: draw(st.integers(0, len(content)) | st.just(len(content)))])


def test_a_page_in_place_of_a_checkpoint_has_a_reason(tmp_path):
    path = tmp_path / 'page.pth'
    path.write_text('<html>Not found</html>\n')
    with pytest.raises(safe_loading.UnreadableCheckpointError, match=r'plain weights: \w.+\. Copy'):
        safe_loading.read_checkpoint(path)


@settings.get_profile('fuzz')
@given(content=altered(whole_checkpoint()))
def test_altered_checkpoints_are_refused_by_name_or_read_right(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / 'altered.pth'
    path.write_bytes(content)
    try:
        state, message = safe_loading.read_checkpoint(path)['state_dict'], None
    except safe_loading.UnreadableCheckpointError as error:
        message = str(error)
    if message:
        assert message.startswith(f'{path} cannot be read as plain weights: ')
        assert len(message.splitlines()) == 1
    else:
        # Nothing but the zip's own padding or dates was altered.
        assert sorted(state) == [f'layer{i}.weight' for i in range(3)]
        for i, name in enumerate(sorted(state)):
            assert torch.equal(state[name], torch.arange(40.0) + i)


@settings.get_profile('fuzz')
@given(size=st.integers(0, len(whole_checkpoint(as_zip=False)) - 1))
def test_old_files_without_check_sums_are_refused_if_truncated(tmp_path_factory, size):
    path = tmp_path_factory.getbasetemp() / 'truncated.pth'
    path.write_bytes(whole_checkpoint(as_zip=False)[:size])
    with pytest.raises(safe_loading.UnreadableCheckpointError, match=r'truncated\.pth cannot be'):
        safe_loading.read_checkpoint(path)


def test_altered_weights_are_noticed(tmp_path):
    path = tmp_path / 'a.pth'
    content = whole_checkpoint()
    place = content.index(torch.arange(40.0).numpy().tobytes()) + 40
    path.write_bytes(content[:place] + b'????' + content[place + 4 :])
    # torch takes them as they are.
    assert not torch.equal(torch.load(path)['state_dict']['layer0.weight'], torch.arange(40.0))
    with pytest.raises(safe_loading.UnreadableCheckpointError, match='another check sum'):
        safe_loading.read_checkpoint(path)


@pytest.mark.skipif(
    not hasattr(torch.serialization, 'set_crc32_options'),
    reason='torch 2.6 and later can write files without check sums',
)
def test_checkpoints_without_check_sums_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(dict(state_dict=dict(a=torch.ones(2))), tmp_path / 'a.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    assert safe_loading.read_checkpoint(tmp_path / 'a.pth')['state_dict']['a'].sum() == 2


def test_parts_of_configs_are_read(tmp_path):
    part = ConfigDict(colours=dict(cat=[1, 2]))
    torch.save(dict(meta=dict(dataset_meta=part)), tmp_path / 'a.pth')
    loaded = safe_loading.read_checkpoint(tmp_path / 'a.pth')
    assert loaded['meta']['dataset_meta'].colours.cat == [1, 2]


def test_what_is_refused_is_named(tmp_path):
    torch.save(dict(meta=tmp_path), tmp_path / 'a.pth')
    with pytest.raises(safe_loading.UnreadableCheckpointError, match=r'GLOBAL pathlib\.') as error:
        safe_loading.read_checkpoint(tmp_path / 'a.pth')
    assert str(error.value).endswith('save its weights alone')


def test_mmengine_names_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    safe_loading.name_unreadable_checkpoints()
    path = tmp_path / 'a.pth'
    path.write_bytes(whole_checkpoint())
    assert CheckpointLoader.load_checkpoint(str(path), 'cpu')['meta'] == dict(epoch=3, seed=0)
    path.write_bytes(whole_checkpoint()[:500])
    with pytest.raises(safe_loading.UnreadableCheckpointError, match=r'a\.pth cannot be read'):
        CheckpointLoader.load_checkpoint(str(path), 'cpu')
    with pytest.raises(FileNotFoundError, match=r'none\.pth'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'none.pth'), 'cpu')


def test_other_contents(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save([1, 2], path)
    with pytest.raises(safe_loading.UnreadableCheckpointError, match=r'holds a list, not a dict'):
        safe_loading.read_checkpoint(path)
    with pytest.raises(FileNotFoundError, match=r'none\.pth'):
        safe_loading.read_checkpoint(tmp_path / 'none.pth')
