"""Files that are cut off, altered, or something else: one line that names them."""

import io
import runpy
import zipfile
from functools import partial

import cv2
import numpy as np
import onnx
import pytest
import torch
from mmengine.registry import init_default_scope
from PIL import Image

from hadaptive_runtime import Preprocessing, load_exported
from hadaptive_runtime.images import read_image
from hadaptive_runtime.onnx_session import create_session
from mmdet_hadaptive.export import ExportError
from mmdet_hadaptive.export.images import run_pipeline
from mmdet_hadaptive.utils.detectors import load_detector
from mmdet_hadaptive.utils.safe_loading import UnreadableCheckpointError

from .conftest import FUZZ, constant_model, damage, small_config

SIZE = (96, 160)
PREPROCESSING = Preprocessing(SIZE, SIZE, True, 'BGR', (0.0,) * 3, (1.0,) * 3, (0.0,) * 3)


@pytest.fixture
def config(untrained):
    init_default_scope('mmdet')
    return small_config(untrained[0])


def is_one_line(error, file):
    return str(file) in str(error) and '\n' not in str(error)


def read_or_refuse(file, function, *args):
    """What the function returns; None if it raises an error that names the file in one line."""
    try:
        return function(*args)
    except (ExportError, UnreadableCheckpointError) as error:
        refusal = error
    assert is_one_line(refusal, file)
    return None


def test_damaged_models_are_loaded_or_refused(tmp_path):
    rng = np.random.default_rng(0)
    file = constant_model(tmp_path / 'model.onnx', PREPROCESSING)
    content = file.read_bytes()
    refused = 0
    for _ in range(FUZZ):
        file.write_bytes(damage(content, rng))
        refused += read_or_refuse(file, load_exported, file) is None
    assert refused > FUZZ / 3
    for size in (0, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:size])
        with pytest.raises(ExportError, match=r'copy it again, or export it') as error:
            load_exported(file)
        assert is_one_line(error.value, file)
    file.write_bytes(content)
    load_exported(file)


def without_metadata(content):
    model = onnx.load_from_string(content)
    del model.metadata_props[:]
    return model.SerializeToString()


@pytest.mark.parametrize(
    'change', [without_metadata, lambda content: b'', lambda content: b'\x00' * 1000]
)
def test_other_models_are_refused(tmp_path, change):
    file = constant_model(tmp_path / 'model.onnx', PREPROCESSING)
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(ExportError, match=r'copy it again, or export it') as error:
        load_exported(file)
    assert is_one_line(error.value, file)


def test_what_onnx_runtime_refuses(tmp_path):
    file = tmp_path / 'model.onnx'
    file.write_text('nothing')
    with pytest.raises(ValueError, match=r'ONNX Runtime cannot load') as error:
        create_session(file)
    assert is_one_line(error.value, file)
    with pytest.raises(ValueError, match=r'ONNX Runtime cannot load the model'):
        create_session(b'nothing')
    with pytest.raises(ValueError, match=r'nowhere.*exist'):
        create_session('nowhere')


def image_files():
    """The contents of small images of many kinds."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    image = Image.fromarray(pixels)
    turned = Image.Exif()
    turned[0x112] = 6
    for kind, odd, options in [
        ('JPEG', image, dict(exif=turned)),
        ('JPEG', image.convert('L'), dict(progressive=True)),
        ('JPEG', image.convert('CMYK'), {}),
        ('PNG', image.convert('RGBA'), {}),
        ('PNG', image.convert('LA'), {}),
        ('BMP', image, {}),
        ('WEBP', image, {}),
    ]:
        buffer = io.BytesIO()
        odd.save(buffer, kind, **options)
        yield buffer.getvalue()


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_damaged_images_are_read_or_refused(config, tmp_path, backend):
    rng = np.random.default_rng(0)
    config.test_dataloader.dataset.pipeline[0].imdecode_backend = backend
    contents = list(image_files())
    file = tmp_path / 'image'
    for content in contents:
        file.write_bytes(content)
        assert run_pipeline(config, file).shape == (192, 192, 3)
        assert read_image(file).shape[2] == 3
        for size in (len(content) * 2 // 3, len(content) - 30):
            file.write_bytes(content[:size])
            for read in (read_image, partial(run_pipeline, config)):
                with pytest.raises(ExportError, match='truncated, or no image') as error:
                    read(file)
                assert is_one_line(error.value, file)
    for number in range(FUZZ):
        file.write_bytes(damage(contents[number % len(contents)], rng))
        image = read_or_refuse(file, read_image, file)
        assert image is None or (image.ndim == 3 and image.shape[2] == 3)
        pixels = read_or_refuse(file, run_pipeline, config, file)
        assert pixels is None or pixels.shape == (192, 192, 3)


def test_truncated_images_that_opencv_fills_up(config, tmp_path, monkeypatch):
    content = next(image_files())
    # As OpenCV 4 does.
    monkeypatch.setattr(cv2, 'imdecode', lambda *args: np.zeros((48, 80, 3), np.uint8))
    config.test_dataloader.dataset.pipeline[0].imdecode_backend = 'cv2'
    file = tmp_path / 'image'
    file.write_bytes(content)
    assert run_pipeline(config, file).shape == (192, 192, 3)
    assert read_image(file).shape == (48, 80, 3)
    file.write_bytes(content[:-30])
    for read in (read_image, partial(run_pipeline, config)):
        with pytest.raises(ExportError, match='truncated'):
            read(file)


def test_damaged_checkpoints_are_refused(config, untrained, tmp_path):
    rng = np.random.default_rng(0)
    content = untrained[1].read_bytes()
    file = tmp_path / 'checkpoint.pth'
    expected = load_detector(config, untrained[1])[0].state_dict()
    refused = 0
    for _ in range(FUZZ):
        file.write_bytes(damage(content, rng))
        loaded = read_or_refuse(file, load_detector, config, file)
        if loaded is None:
            refused += 1
        else:
            # Between the records of the archive is nothing that matters.
            weights = loaded[0].state_dict()
            assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert refused > 0.9 * FUZZ


def test_altered_weights_are_refused(config, untrained, tmp_path):
    file = tmp_path / 'checkpoint.pth'
    content = bytearray(untrained[1].read_bytes())
    with zipfile.ZipFile(untrained[1]) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content[largest.header_offset + largest.file_size // 2] ^= 64
    file.write_bytes(content)
    message = r'another check sum than when it was saved.*Copy or download it again'
    with pytest.raises(UnreadableCheckpointError, match=message) as error:
        load_detector(config, file)
    assert is_one_line(error.value, file)


@pytest.mark.parametrize(
    'write',
    [
        lambda file: file.touch(),
        lambda file: file.write_text('nothing'),
        lambda file: torch.save(torch.zeros(3), file),
        lambda file: torch.save(dict(state_dict=[1, 2]), file),
        lambda file: torch.save(dict(state_dict=dict(a=1)), file),
        lambda file: torch.save(dict(state_dict=dict(a=pytest.raises)), file),
    ],
)
def test_other_files_are_no_checkpoints(config, tmp_path, write):
    file = tmp_path / 'checkpoint.pth'
    write(file)
    message = r'cannot be read as plain weights|no state_dict'
    with pytest.raises(UnreadableCheckpointError, match=message) as error:
        load_detector(config, file)
    assert is_one_line(error.value, file)


def test_the_tools_print_one_line(untrained, tmp_path, monkeypatch, pytestconfig):
    config, image = tmp_path / 'config.py', tmp_path / 'image.png'
    small_config(untrained[0]).dump(config)
    image.touch()
    damaged = constant_model(tmp_path / 'model.onnx', PREPROCESSING)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    checkpoint = tmp_path / 'checkpoint.pth'
    checkpoint.write_bytes(untrained[1].read_bytes()[:-1000])
    out = tmp_path / 'out.onnx'
    for tool, arguments, culprit in [
        ('export', [checkpoint, out], checkpoint),
        ('export', [tmp_path / 'nowhere.pth', out], 'nowhere.pth'),
        ('export', [untrained[1], out, '--image', image], image),
        ('validate', [damaged, '--work-dir', tmp_path], damaged),
        ('validate', [tmp_path / 'nowhere.onnx', '--work-dir', tmp_path], 'nowhere.onnx'),
    ]:
        monkeypatch.setattr('sys.argv', list(map(str, [tool, config, *arguments])))
        with pytest.raises(SystemExit) as error:
            runpy.run_path(str(pytestconfig.rootpath / f'tools/{tool}.py'), run_name='__main__')
        assert is_one_line(error.value, culprit)
    assert not out.exists()
