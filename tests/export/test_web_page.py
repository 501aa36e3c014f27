"""The page for browsers: what its scripts compute in node, and what it shows in Chromium."""

import base64
import io
import json
import platform
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from PIL import Image, ImageCms

from hadaptive_runtime import Detections, Preprocessing, load_exported
from hadaptive_runtime.drawing import draw
from hadaptive_runtime.images import read_image
from mmdet_hadaptive.datasets import SHAPE_CLASSES
from mmdet_hadaptive.export import ExportError, export_detector, web_page
from mmdet_hadaptive.export.onnxruntime_web import find_onnxruntime_web
from research.benchmark.browser import missing_browser, open_browser, serve
from research.benchmark.page import ISOLATION, Page

from .conftest import constant_model, small_config

# In these processors cv2.resize computes in one way; in others it may round some pixels otherwise.
SAME_RESIZE = platform.machine() in ('x86_64', 'AMD64')
NO_ROUNDING = dict(rtol=0, atol=0 if SAME_RESIZE else 0.02)
SCRIPTS = Path(web_page.__file__).with_name('page')
PROGRAM = Path(__file__).with_name('run_page.mjs')
# As many digits as the page shows.
SHOWN = 0.051


@pytest.fixture(scope='session')
def runtime():
    """Skips where ONNX Runtime Web cannot be had."""
    try:
        return find_onnxruntime_web()
    except ExportError as error:
        pytest.skip(f'needs ONNX Runtime Web: {error}')


@pytest.fixture(scope='session')
def page(runtime, trained, tmp_path_factory):
    """The trained detector as a page."""
    root, checkpoint = trained
    out = tmp_path_factory.mktemp('web') / 'page'
    config = small_config(root)
    # So that it finds something in cells, too, which it has never seen.
    config.model.test_cfg.score_thr = 0.01
    export_detector(config, checkpoint, out, 'web')
    return out


@pytest.fixture
def run_node(tmp_path):
    """Answers to requests, see run_page.mjs."""
    node = shutil.which('node')
    if node is None:
        pytest.skip('needs node: apt-get install nodejs')

    def run(requests, folder=SCRIPTS):
        # By this, node takes .js for modules.
        copy = tmp_path / 'scripts'
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        (copy / 'package.json').write_text('{"type": "module"}')
        file = tmp_path / 'requests.json'
        file.write_text(json.dumps(requests))
        command = [node, PROGRAM, copy, file]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return run


def raw_image(image, file):
    """Writes an image, (H, W, 3), BGR, as a canvas gives it, with any transparency."""
    alpha = np.arange(image.shape[0] * image.shape[1], dtype=np.uint8).reshape(*image.shape[:2], 1)
    file.write_bytes(np.concatenate([image[..., ::-1], alpha], axis=2).tobytes())
    return dict(file=str(file), width=image.shape[1], height=image.shape[0])


def test_images_are_prepared_as_in_python(run_node, tmp_path):
    rng = np.random.default_rng(0)
    means, stds = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    plain, pad = dict(mean=(0.0,) * 3, std=(1.0,) * 3), dict(pad_value=(103.53, 116.28, 123.675))
    settings = [
        Preprocessing((64, 96), (64, 96), False, 'BGR', **plain, **pad),
        Preprocessing((64, 96), (60, 90), True, 'RGB', mean=means, std=stds, **pad),
    ]
    sizes = [(48, 64), (128, 192), (64, 96), (1, 1), (3, 2), (200, 7), (7, 200), (333, 500)]
    sizes += [tuple(rng.integers(1, 400, 2)) for _ in range(12)]
    requests, expected = [], []
    for number, size in enumerate(sizes):
        # Smooth and not: averaging over more pixels than two would be seen in one, a shift in both.
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        raw = raw_image(image, tmp_path / f'{number}.raw')
        for setting in settings:
            out = str(tmp_path / f'{len(requests)}.input')
            metadata = setting.metadata()
            requests.append(('prepare', dict(image=raw, metadata=metadata, out=out)))
            expected.append(setting.prepare(image))
    answers = run_node(requests)
    for (_, request), (inputs, factors), (found, error) in zip(
        requests, expected, answers, strict=True
    ):
        assert error is None
        assert np.array_equal(np.float32(found), factors)
        ours = np.fromfile(request['out'], np.float32).reshape(inputs.shape)
        assert np.allclose(ours, inputs, **NO_ROUNDING), request


def test_models_are_read_as_in_python(run_node, tmp_path):
    size, colour = (96, 160), (0.0,) * 3
    preprocessing = Preprocessing(size, size, True, 'BGR', colour, (1.0,) * 3, colour)
    whole = constant_model(tmp_path / 'whole.onnx', preprocessing)
    content = whole.read_bytes()
    damaged = dict(
        cut=content[: len(content) // 2],
        empty=b'',
        text=b'<!doctype html>',
    )
    for name, changed in damaged.items():
        assert changed != content
        (tmp_path / name).write_bytes(changed)
    raw = constant_model(tmp_path / 'raw.onnx', preprocessing, mode='raw')
    # As onnxsim and others leave traces.
    model = onnx.load(whole)
    model.metadata_props.add(key='tool', value='not JSON')
    onnx.save(model, tmp_path / 'changed.onnx')
    model.metadata_props.add(key='priors_per_level', value='[3]')
    onnx.save(model, tmp_path / 'counting.onnx')
    changed = [tmp_path / 'changed.onnx', tmp_path / 'counting.onnx']
    files = [whole, raw, *changed, *(tmp_path / name for name in damaged)]
    answers = run_node([('metadata', dict(file=str(file))) for file in files])
    metadata, error = answers[0]
    assert error is None
    assert metadata == json.loads(
        json.dumps(
            dict(
                mode='nms',
                classes=['disk', 'ring', 'triangle', 'cross'],
                **preprocessing.metadata(),
            )
        )
    )
    assert answers[1][1] == 'The model gives raw: export it with --outputs detections'
    assert answers[2] == answers[0]
    assert answers[3][1].endswith('export it with model.test_cfg.min_bbox_size=0')
    for found, error in answers[4:]:
        assert found is None
        assert error.startswith('The model is damaged')
        assert error.endswith(': copy it again, or export it with tools/export.py')
        assert '\n' not in error


def test_refused_files_are_those_of_python(run_node, tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    thumbnail, whole = io.BytesIO(), io.BytesIO()
    noise.resize((9, 9)).save(thumbnail, 'JPEG')
    noise.save(whole, 'JPEG', comment=thumbnail.getvalue())
    noise.save(tmp_path / 'whole.png')
    cv2.imwrite(str(tmp_path / 'deep.png'), np.asarray(noise).astype(np.uint16))
    content = whole.getvalue()
    for name, part in {
        'whole': content,
        'followed': content + b'more\xff\xda',
        'half': content[: len(content) // 2],
        'no end': content[:-2],
        'short': content[:3],
    }.items():
        (tmp_path / f'{name}.jpg').write_bytes(part)
    files = sorted(tmp_path.glob('*.*g'))
    answers = run_node([('refused', dict(file=str(file))) for file in files])
    expected = [is_refused(file) for file in files]
    assert expected.count(True) == 4
    assert answers == [[refused, None] for refused in expected]


def is_refused(file):
    try:
        read_image(file)
    except ExportError:
        return True
    return False


def check_found(ours, theirs, tolerance=0.01):
    """What the page has found, [name, score, x1, y1, x2, y2], and what Python has."""
    assert [row[0] for row in ours] == theirs.class_names
    numbers = np.array([row[1:] for row in ours], float).reshape(-1, 5)
    assert np.allclose(numbers[:, 0], theirs.scores, atol=1e-3)
    assert np.allclose(numbers[:, 1:], theirs.boxes, atol=tolerance, rtol=0)


def test_detections_in_node_are_those_of_python(run_node, page, trained, tmp_path):
    images = [cv2.imread(str(file)) for file in sorted((trained[0] / 'train').iterdir())]
    images += [images[0][:100], cv2.resize(images[1], (40, 30)), cv2.resize(images[2], (300, 700))]
    raws = [raw_image(image, tmp_path / f'{i}.raw') for i, image in enumerate(images)]
    ((found, error),) = run_node([('detect', dict(images=raws))], page)
    assert error is None
    detector = load_exported(page / 'model.onnx')
    for rows, image in zip(found, images, strict=True):
        expected = detector(image)
        assert len(expected) > 0
        assert [row['label'] for row in rows] == expected.labels.tolist()
        check_found([[row['name'], row['score'], *row['box']] for row in rows], expected)


def profile_of_other_colours():
    """sRGB with red and green exchanged: who follows it sees other colours."""
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    # In the table of a profile, by their names.
    exchanged = content.replace(b'rXYZ', b'....', 1).replace(b'gXYZ', b'rXYZ', 1)
    return exchanged.replace(b'....', b'gXYZ', 1)


@pytest.fixture(scope='session')
def pictures(trained, tmp_path_factory):
    """Files of all kinds that show what the detector has learnt."""
    folder = tmp_path_factory.mktemp('pictures')
    source = Image.open(sorted((trained[0] / 'train').iterdir())[0]).convert('RGB')
    turned = Image.Exif()
    turned[0x0112] = 6
    colours = np.asarray(source)
    alpha = np.random.default_rng(0).integers(0, 256, (*colours.shape[:2], 1), np.uint8)
    # Of these a canvas would know no colour.
    alpha[: len(alpha) // 2] = 0
    transparent = Image.fromarray(np.concatenate([colours, alpha], axis=2))
    makes = {
        'drawn.png': {},
        'photo.jpg': dict(quality=85),
        'progressive.jpg': dict(progressive=True, subsampling=0),
        'turned.jpg': dict(exif=turned, quality=95),
        'profile.jpg': dict(icc_profile=profile_of_other_colours()),
        'web.webp': {},
        'bitmap.bmp': {},
    }
    for name, options in makes.items():
        source.save(folder / name, **options)
    transparent.save(folder / 'transparent.png')
    source.convert('L').save(folder / 'grey.png')
    source.resize((40, 30)).save(folder / 'small.png')
    source.resize((300, 1100)).save(folder / 'upright.png')
    # More than one strip, and more than is drawn.
    source.resize((2600, 700)).save(folder / 'wide.png')
    return folder


def drawn(shown):
    """The canvas of a page, (H, W, 3), RGB."""
    url = shown.browser.run("return document.querySelector('#picture').toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(url.partition(',')[2]))) as image:
        return np.asarray(image.convert('RGB'))


@pytest.fixture(scope='session')
def browser():
    if missing := missing_browser():
        pytest.skip(missing)
    camera = ('--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream')
    with open_browser(*camera) as browser:
        browser.emulate(1100, 900)
        yield browser


@pytest.fixture(scope='module')
def opened(browser, page):
    with serve(page) as url:
        opened = Page(browser)
        assert opened.open(url) == 'ready', opened.text('#error')
        yield opened


@pytest.fixture
def shown(opened):
    """The page, ready, with the slider at its lowest."""
    opened.set_threshold(0)
    return opened


def test_boxes_are_those_of_python(shown, page, pictures, real_data):
    detector = load_exported(page / 'model.onnx')
    cells = sorted((real_data / 'bccd').rglob('*.jpg'))[:3]
    assert len(cells) == 3
    for file in [*cells, *sorted(pictures.iterdir())]:
        rows = shown.show(file)
        expected = detector(file)
        assert len(expected) > 0, file
        check_found(rows, expected, SHOWN)
        assert not shown.text('#error')
        height, width = read_image(file).shape[:2]
        assert shown.text('#status').startswith(f'{file.name}, {width} \u00d7 {height}: ')


def test_boxes_are_drawn_where_they_are(shown, page, pictures):
    file = pictures / 'drawn.png'
    shown.show(file)
    found = load_exported(page / 'model.onnx')(file)
    # The best ones, which few others cover.
    shown.set_threshold(float(found.scores[0]) - 0.02)
    number = len(shown.rows())
    assert number > 0
    picture = drawn(shown)
    # As large as there is room for.
    height, width = picture.shape[:2]
    assert height == round(0.75 * shown.browser.run('return innerHeight'))
    image = read_image(file)[..., ::-1]
    scale = height / image.shape[0]
    assert width == round(scale * image.shape[1])
    untouched = np.ones((height, width), bool)
    for box, label in zip(found.boxes[:number] * scale, found.labels, strict=False):
        x1, y1, x2, y2 = box.astype(int)
        # The colour is that of Python, but for the rounding when it is converted.
        distance = np.abs(picture - np.float32(python_colour(label))).max(axis=2)
        x, y = (x1 + x2) // 2, (y1 + y2) // 2
        for column, row in ((x1, y), (x2, y), (x, y2)):
            assert distance[min(row, height - 1), min(column, width - 1)] <= 3
        # Two pixels, not a filled box.
        assert distance[y, x] > 3
        # The name is above the box, and may be wider.
        top, left = max(y1 - 20, 0), max(x1 - 2, 0)
        untouched[top : y2 + 3, left : max(x2 + 3, x1 + 120)] = False
    assert untouched.any()
    resized = cv2.resize(image, (width, height))
    assert np.abs(picture[untouched] - np.float32(resized[untouched])).mean() < 1


def python_colour(label):
    """RGB as hadaptive_runtime draws it."""
    blank = np.zeros((30, 30, 3), np.uint8)
    found = Detections(np.float32([[5, 15, 25, 25]]), np.float32([1]), np.int64([label]), ['x'])
    return draw(blank, found, list('abcd'))[20, 5, ::-1]


def test_the_threshold_hides_and_counts(shown, page, pictures):
    file = pictures / 'drawn.png'
    shown.show(file)
    found = load_exported(page / 'model.onnx')(file)
    for threshold in (0.0, float(found.scores[1]) - 0.005, 1.0):
        shown.set_threshold(threshold)
        value = float(shown.text('#lowest'))
        names = [
            name
            for name, score in zip(found.class_names, found.scores, strict=True)
            if score >= value
        ]
        assert [row[0] for row in shown.rows()] == names
        counts = [f'{names.count(name)} {name}' for name in SHAPE_CLASSES if name in names]
        items = "return [...document.querySelectorAll('#counts li')].map((li) => li.textContent)"
        assert shown.browser.run(items) == counts
        assert shown.text('#status').endswith(f': {len(names) or "nothing"} found')
        label = "return document.querySelector('#picture').getAttribute('aria-label')"
        assert shown.browser.run(label) == f'drawn.png: {", ".join(counts) or "nothing"} found'
    # The lowest that the model gives anything for.
    shown.set_threshold(0)
    assert shown.text('#lowest') == '0.01'


def test_files_that_are_no_image(shown, pictures, tmp_path):
    rows = shown.show(pictures / 'drawn.png')
    (tmp_path / 'text.png').write_text('text')
    (tmp_path / 'empty.jpg').write_bytes(b'')
    content = (pictures / 'photo.jpg').read_bytes()
    (tmp_path / 'cut.jpg').write_bytes(content[: len(content) // 2])
    (tmp_path / 'text.mp4').write_text('text')
    for name, problem in {
        'text.png': 'cannot be read as an image, or is truncated: choose another',
        'empty.jpg': 'cannot be read as an image, or is truncated: choose another',
        'cut.jpg': 'cannot be read as an image, or is truncated: choose another',
        'text.mp4': 'cannot be played by this browser: convert it to MP4 (H.264) or WebM',
    }.items():
        shown.show(tmp_path / name)
        assert shown.text('#error') == f'{name} {problem}'
    assert shown.show(pictures / 'drawn.png') == rows
    assert not shown.text('#error')


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('model.onnx', None, r'model.onnx is missing beside the page (status 404): copy the whole'),
        ('model.onnx', b'rubbish', 'The model is damaged'),
        ('onnxruntime/ort-wasm-simd-threaded.wasm', None, 'threaded.wasm is missing beside the p'),
        ('onnxruntime/ort-wasm-simd-threaded.wasm', b'rubbish', 'ONNX Runtime Web does not load'),
        ('onnxruntime/ort.wasm.bundle.min.js', None, 'bundle.min.js is missing or damaged'),
        ('detector.js', None, "The page's worker does not start: a file is missing"),
    ],
)
def test_pages_with_files_missing_or_damaged(browser, page, tmp_path, name, content, message):
    copy = tmp_path / 'page'
    shutil.copytree(page, copy)
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    with serve(copy) as url, browser.window():
        shown = Page(browser)
        assert shown.open(url) == 'broken'
        assert message in shown.text('#error')
        assert '\n' not in shown.text('#error')
        assert shown.text('#status') == 'The model is not loaded'
        assert shown.find('#file', 'disabled')


def test_a_video_runs_until_it_is_stopped(shown, page, pictures, tmp_path):
    image = read_image(pictures / 'drawn.png')
    file = tmp_path / 'video.webm'
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*'VP80'), 10, image.shape[1::-1])
    for _ in range(10):
        writer.write(image)
    writer.release()
    shown.show(file)
    wait = shown.browser.wait
    wait("return / frames per second, /.test(document.querySelector('#speed').textContent)")
    # Colours are not quite those of the picture any more.
    found = load_exported(page / 'model.onnx')(image)
    shown.set_threshold(float(found.scores[0]) - 0.2)
    wait("return document.querySelectorAll('#boxes tr').length")
    name, _, *box = shown.rows()[0]
    assert name == found.class_names[0]
    assert np.allclose(np.float32(box), found.boxes[0], atol=3)
    shown.click('#stop')
    assert not shown.text('#speed')
    assert shown.rows()[0] is not None


def test_the_camera(shown):
    shown.click('#camera')
    shown.browser.wait("return document.querySelector('#speed').textContent.includes('second')")
    assert shown.text('#status') == 'Camera'
    shown.click('#stop')
    for error, message in {
        'NotAllowedError': 'The camera is not allowed: allow it beside the address',
        'NotFoundError': 'There is no camera: connect one, or open an image',
    }.items():
        shown.browser.run(
            'const error = new DOMException("", arguments[0]);'
            'navigator.mediaDevices.getUserMedia = () => Promise.reject(error)',
            error,
        )
        shown.click('#camera')
        shown.browser.wait("return document.querySelector('#error').textContent")
        assert shown.text('#error').startswith(message)


def test_threads_where_the_server_allows_them(browser, page, pictures):
    file = pictures / 'photo.jpg'
    with serve(page, ISOLATION) as url, browser.window():
        shown = Page(browser)
        assert shown.open(url) == 'ready', shown.text('#error')
        threads = browser.run('return navigator.hardwareConcurrency')
        if threads > 2:
            assert shown.text('#status').endswith(' threads')
        shown.set_threshold(0)
        check_found(shown.show(file), load_exported(page / 'model.onnx')(file), SHOWN)
