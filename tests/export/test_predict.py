import errno
import io
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.apis import inference_detector, init_detector
from PIL import Image

from hadaptive_runtime import ExportError, Preprocessing, load_exported, loading
from hadaptive_runtime.images import read_image, write_image
from mmdet_hadaptive.datasets import SHAPE_CLASSES
from mmdet_hadaptive.export import export_detector

from .conftest import constant_model, small_config

SIZE = (96, 160)
PREPROCESSING = Preprocessing(SIZE, SIZE, True, 'BGR', (0.0,) * 3, (1.0,) * 3, (0.0,) * 3)


@pytest.fixture
def script(pytestconfig):
    return pytestconfig.rootpath / 'tools/predict.py'


@pytest.fixture
def model(tmp_path):
    return constant_model(tmp_path / 'model.onnx', PREPROCESSING)


def write_images(folder, *names):
    folder.mkdir()
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((40, 60 + number, 3), 128, np.uint8))
    return folder


def test_detections_are_those_of_mmdet(trained, tmp_path, run, script):
    root, checkpoint = trained
    exported = tmp_path / 'model.onnx'
    export_detector(small_config(root), checkpoint, exported, normalize=True)
    image = sorted((root / 'train').iterdir())[0]
    code = (
        'import sys\n'
        "sys.modules.update(dict.fromkeys(('torch', 'mmdet', 'mmengine', 'mmdet_hadaptive')))\n"
        'from hadaptive_runtime import load_exported\n'
        f'found = load_exported({str(exported)!r})({str(image)!r})\n'
        'for row in zip(found.boxes, found.scores, found.labels, found.class_names):\n'
        '    print("FOUND", *row[0], *row[1:])\n'
    )
    lines = [line.split()[1:] for line in run('-c', code, cwd=tmp_path).splitlines()]
    ours = np.array([line[:-1] for line in lines], float)
    detector = init_detector(small_config(root), str(checkpoint), device='cpu')
    theirs = inference_detector(detector, str(image)).pred_instances
    assert len(ours) == len(theirs) > 0
    assert np.allclose(ours[:, :4], theirs.bboxes.numpy(), atol=1e-2)
    assert np.allclose(ours[:, 4], theirs.scores.numpy(), atol=1e-4)
    assert (ours[:, 5] == theirs.labels.numpy()).all()
    assert [line[-1] for line in lines] == [SHAPE_CLASSES[i] for i in theirs.labels]
    output = run(script, exported, root / 'train', '--out', 'pictures', cwd=tmp_path)
    assert 'images: 4, median latency' in output
    picture = cv2.imread(str(tmp_path / 'pictures' / image.name))
    assert picture.shape == cv2.imread(str(image)).shape


def test_images_of_one_name_get_pictures_of_their_own(tmp_path, run, script, model):
    folder = write_images(tmp_path / 'images', 'a.jpg', 'a.png')
    assert 'images: 2,' in run(script, model, folder, cwd=tmp_path)
    pictures = [cv2.imread(str(tmp_path / 'outputs' / name)) for name in ('a.jpg', 'a.png')]
    assert [picture.shape for picture in pictures] == [(40, 60, 3), (40, 61, 3)]


def test_images_that_cannot_be_read_are_named(tmp_path, run, script, model):
    folder = write_images(tmp_path / 'images', 'good.jpg', 'half.jpg', 'half.png')
    for name in ('half.jpg', 'half.png'):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    (folder / 'empty.png').touch()
    (folder / 'text.bmp').write_text('nothing')
    (folder / 'folder.jpg').mkdir()
    (folder / 'notes.txt').write_text('not meant')
    output = run(script, model, folder, cwd=tmp_path, code=1)
    assert 'images: 1, median latency' in output
    assert (
        'error: 4 of 5 images have failed: 1 (empty.png): empty: replace it; 3 (half.jpg, '
        'half.png, text.bmp): truncated, or no image that OpenCV reads: replace it\n'
    ) in output
    assert f'note: {folder}: files that are neither images nor videos are left out, 1 (no' in output
    assert f'note: {folder}: the folders in it are left out, 1 (folder.jpg); --rec' in output
    assert [file.name for file in (tmp_path / 'outputs').iterdir()] == ['good.jpg']
    for name in ('empty.png', 'half.jpg'):
        output = run(script, model, folder / name, cwd=tmp_path, code=1)
        assert f'error: 1 of 1 images have failed: 1 ({name}): ' in output.splitlines()[-1]
        assert 'Traceback' not in output


def test_wrong_arguments(tmp_path, run, script, model):
    folder = write_images(tmp_path / 'images', 'a.jpg')
    links = tmp_path / 'links'
    links.mkdir()
    (links / 'a.jpg').symlink_to(folder / 'a.jpg')
    for source, out, message in [
        ('nowhere', 'outputs', 'nowhere: no such image, folder, video, camera or address'),
        (folder, folder, 'a.jpg would overwrite what is read'),
        (folder / 'a.jpg', folder, 'a.jpg would overwrite what is read'),
        (links, folder, 'a.jpg would overwrite what is read'),
        (tmp_path, 'outputs', 'and no video, but folders, 2 (images, links): add --recursive'),
    ]:
        output = run(script, model, source, '--out', out, cwd=tmp_path, code=1)
        assert message in output
        assert 'Traceback' not in output
    for threshold in ('30', 'nan', '-1'):
        output = run(script, model, folder, '--threshold', threshold, cwd=tmp_path, code=2)
        assert f'must be in 0..1, 0.3 for 30 %, got {threshold}' in output
    output = run(script, model, folder, '--threshold', '0,3', cwd=tmp_path, code=2)
    assert "invalid score value: '0,3'" in output
    output = run(script, tmp_path, folder, cwd=tmp_path, code=1)
    assert f'{tmp_path} is a folder: name the model in it' in output
    other = constant_model(tmp_path / 'other.onnx', PREPROCESSING, mode='decoded')
    assert 'export it with --outputs detections' in run(script, other, folder, cwd=tmp_path, code=1)


def test_a_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / 'a.jpg'
    file.write_bytes(b'before')

    def fail(path, content):
        path.touch()
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as context:
        context.setattr(Path, 'write_bytes', fail)
        with pytest.raises(ExportError, match=r'a.jpg cannot be written \(No space left'):
            write_image(file, np.zeros((8, 8, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ['a.jpg']
    assert file.read_bytes() == b'before'
    with pytest.raises(ExportError, match=r'a\.jpg cannot hold 65536 x 1 pixels: convert'):
        write_image(file, np.zeros((1, 65536, 3), np.uint8))
    # OpenCV cannot write to such a name.
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9.png'))
    write_image(odd, np.zeros((8, 8, 3), np.uint8))
    assert read_image(odd).shape == (8, 8, 3)


def test_a_file_that_is_not_there(tmp_path, model):
    with pytest.raises(FileNotFoundError, match='typo'):
        load_exported(model)(tmp_path / 'typo.jpg')


@pytest.mark.parametrize(('text', 'threads'), [('', None), ('2', 2), ('4,2', 4), ('0', None)])
def test_threads_of_the_environment(model, monkeypatch, text, threads):
    monkeypatch.setenv('OMP_NUM_THREADS', text)
    assert loading._default_threads() == threads
    monkeypatch.setenv('OMP_NUM_THREADS', 'auto')
    with pytest.raises(ExportError, match="OMP_NUM_THREADS must be a number, got 'auto'"):
        load_exported(model)


def test_odd_images_are_read_as_mmdet_reads_them(tmp_path):
    """Grey, CMYK, four channels, and turned by EXIF."""
    from mmcv.transforms import LoadImageFromFile

    pixels = (
        np.random.default_rng(0).integers(0, 256, (5, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    )
    image = Image.fromarray(pixels)
    turned = Image.Exif()
    turned[0x112] = 6  # a quarter
    for name, odd, options in [
        ('grey.jpg', image.convert('L'), {}),
        ('cmyk.jpg', image.convert('CMYK'), {}),
        ('exif.jpg', image, dict(exif=turned)),
        ('progressive.jpg', image, dict(progressive=True)),
        ('alpha.png', image.convert('RGBA'), {}),
        ('bits.png', image.convert('1'), {}),
        ('palette.png', image.convert('P'), {}),
        ('image.webp', image, {}),
    ]:
        odd.save(tmp_path / name, **options)
    for file in tmp_path.iterdir():
        expected = LoadImageFromFile()(dict(img_path=str(file)))['img']
        assert np.array_equal(read_image(file), expected), file.name
        assert expected.shape == ((64, 40, 3) if file.name == 'exif.jpg' else (40, 64, 3))


def test_a_thumbnail_does_not_hide_that_an_image_is_truncated(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    contents = []
    for size in (16, 64):
        buffer = io.BytesIO()
        Image.fromarray(pixels[:size, :size]).save(buffer, 'JPEG')
        contents.append(buffer.getvalue())
    thumbnail, image = contents
    segment = b'\xff\xe1' + (len(thumbnail) + 2).to_bytes(2, 'big') + thumbnail
    image = image[:2] + segment + image[2:]
    file = tmp_path / 'image.jpg'
    file.write_bytes(image)
    assert read_image(file).shape == (64, 64, 3)
    # Some cameras append data, such as a video, which may hold what looks like a start.
    file.write_bytes(image + bytes(100) + b'\xff\xda' + bytes(100))
    assert read_image(file) is not None
    # OpenCV 4 fills up what is missing.
    monkeypatch.setattr(cv2, 'imdecode', lambda *args: np.zeros((64, 64, 3), np.uint8))
    # An erased memory is full of 0xff; no search may begin anew at each of them.
    for more in (b'', b'\xff' * 10**6):
        file.write_bytes(image[:-100] + more)
        with pytest.raises(ExportError, match='truncated'):
            read_image(file)


def test_narrow_images(tmp_path, model):
    detector = load_exported(model)
    assert len(detector(np.zeros((5000, 1, 3), np.uint8))) == 2


def test_the_package_can_be_copied_alone(tmp_path, run, script, model):
    folder = write_images(tmp_path / 'images', 'a.jpg')
    shutil.copytree(script.parents[1] / 'hadaptive_runtime', tmp_path / 'copy/hadaptive_runtime')
    environment = {'PYTHONPATH': str(tmp_path / 'copy')}
    output = run('-m', 'hadaptive_runtime', model, folder / 'a.jpg', cwd=tmp_path, env=environment)
    assert 'images: 1' in output
