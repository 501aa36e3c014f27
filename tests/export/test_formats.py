"""Every format: detections as those of MMDetection, and what is refused."""

import json
import os
import runpy
import subprocess
import sys
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmengine.registry import DefaultScope
from torch import nn

from hadaptive_runtime import Preprocessing, load_exported
from hadaptive_runtime.model_file import encode_sidecar
from hadaptive_runtime.suppression import choose_detections
from mmdet_hadaptive.datasets import SHAPE_CLASSES
from mmdet_hadaptive.export import (
    FORMATS,
    ExportedDetector,
    ExportError,
    benchmark_exported,
    export_detector,
)
from mmdet_hadaptive.export.conversion import Conversion
from mmdet_hadaptive.export.formats import check_request
from mmdet_hadaptive.export.inference_layers import SelectedProducts
from mmdet_hadaptive.export.writers import import_package, write_executorch
from mmdet_hadaptive.layers import AdaptiveCrossHadamard

from .conftest import on_training_images, small_config

ROOT = Path(__file__).parents[2]
PACKAGES = {
    'onnx': [],
    'opencv': [],
    'ncnn': ['ncnn', 'pnnx'],
    'litert': ['litert_torch', 'ai_edge_litert'],
}
# A page has an ONNX file and is tested beside.
FILES = [name for name in FORMATS if name != 'web']
OTHERS = [name for name in FILES if name != 'onnx']
# ExecuTorch takes a minute to convert a whole detector, small as it is.
WHOLE_DETECTORS = os.environ.get('HADAPTIVE_EXECUTORCH')


@pytest.fixture(scope='module')
def export(trained, tmp_path_factory):
    """Exports the trained model to a format, once."""
    root, checkpoint = trained
    folder, made = tmp_path_factory.mktemp('formats'), {}

    def export(name):
        if name == 'executorch' and not WHOLE_DETECTORS:
            pytest.skip('set HADAPTIVE_EXECUTORCH=1 to convert a whole detector')
        for package in PACKAGES.get(name, [name]):
            if find_spec(package) is None:
                how = 'make test-litert' if name == 'litert' else 'pip install it'
                pytest.skip(f'{package} is not installed: {how}')
        if name not in made:
            out = folder / f'{name}{FORMATS[name].suffix}'
            # On an image that it does not know, its scores nearly tie.
            image = sorted((root / 'train').iterdir())[0]
            made[name] = export_detector(small_config(root), checkpoint, out, name, image=image)
        return made[name]

    return export


@pytest.fixture(scope='module')
def expected(trained):
    """A training image, and what MMDetection detects in it."""
    root, checkpoint = trained
    image = sorted((root / 'train').iterdir())[0]
    detector = init_detector(small_config(root), str(checkpoint), device='cpu')
    return image, inference_detector(detector, str(image)).pred_instances


@pytest.mark.parametrize('name', FILES)
def test_detections_are_those_of_mmdet(name, export, expected):
    report = export(name)
    assert report.difference < 1e-3
    image, theirs = expected
    ours = load_exported(report.file)(image)
    assert len(ours) == len(theirs) > 0
    assert np.allclose(ours.boxes, theirs.bboxes.numpy(), atol=1e-2)
    assert np.allclose(ours.scores, theirs.scores.numpy(), atol=1e-4)
    assert ours.labels.tolist() == theirs.labels.tolist()
    assert ours.class_names == [SHAPE_CLASSES[label] for label in theirs.labels]


class TinyDetector(nn.Module):
    """One box for each place of a map that selects channels and multiplies them."""

    output_names = ('boxes', 'scores')

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 8, 8)
        ach = AdaptiveCrossHadamard(12, 4).eval()
        ach.norm = nn.Identity()
        self.products = SelectedProducts(ach, 8)
        self.head = nn.Conv2d(self.products.out_channels, 6, 1)

    def forward(self, images):
        y = self.head(self.products(self.stem(images))).flatten(2).transpose(1, 2)
        corner = 100 * y[..., :2].sigmoid()
        return torch.cat([corner, corner + 50 * y[..., 2:4].sigmoid()], -1), y[..., 4:].sigmoid()


def test_a_package_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    (tmp_path / 'broken_runtime.py').write_text(
        "raise OSError('libgomp.so.1: no such file\\nInstall libgomp1')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    message = (
        r'broken_runtime is installed .*OSError: libgomp\.so\.1: .*Install libgomp1\): .*--force'
    )
    with pytest.raises(ExportError, match=message):
        import_package('broken_runtime')
    with pytest.raises(ExportError, match='absent_runtime is not installed: pip install absent_'):
        import_package('absent_runtime.core')


def test_the_tool_names_a_runtime_that_cannot_be_imported(run, tmp_path):
    (tmp_path / 'onnxruntime.py').write_text("raise OSError('libgomp.so.1: no such file')\n")
    env = {'PYTHONPATH': f'{tmp_path}{os.pathsep}{ROOT}'}
    output = run(ROOT / 'tools/export.py', '--help', cwd=tmp_path, env=env, code=1)
    assert 'Traceback' not in output
    assert output.splitlines()[-1].startswith('error: onnxruntime is installed but cannot be')


def test_executorch_writes_and_runs(tmp_path):
    pytest.importorskip('executorch')
    settings = dict(
        priors_per_level=[16],
        candidates_per_level=20,
        score_threshold=0.1,
        iou_threshold=0.5,
        min_box_side=-1,
        max_detections=5,
    )
    size, mean, std = (32, 32), (127.0,) * 3, (60.0,) * 3
    preprocessing = Preprocessing(size, size, False, 'BGR', mean, std, mean)
    metadata = dict(mode='nms', classes=['cat', 'dog'], **preprocessing.metadata(), **settings)
    network, file = TinyDetector().eval(), tmp_path / 'tiny.pte'
    # As NumPy makes a batch of one.
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    inputs = preprocessing.canvas(image)[None]
    write_executorch(
        network.to(memory_format=torch.channels_last),
        torch.from_numpy(inputs),
        file,
        metadata,
        Conversion(1, 'dynamo', 18),
    )
    detector = load_exported(file)
    with torch.no_grad():
        boxes, scores = (output[0].numpy() for output in network(torch.from_numpy(inputs.copy())))
    expected = choose_detections(boxes, scores, None, settings)
    (found,) = detector.detect(inputs)
    assert len(found) == len(expected[0]) > 2
    for ours, theirs in zip((found.boxes, found.scores, found.labels), expected, strict=True):
        assert np.allclose(ours, theirs, atol=1e-4)
    assert set(found.class_names) == {'cat', 'dog'}
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ExportError, match=r'tiny\.pte: ExecuTorch cannot load.*copy it again'):
        load_exported(file)


@pytest.mark.parametrize('name', OTHERS)
def test_damaged_files_are_refused(name, export, tmp_path):
    files = {file.suffix: file.read_bytes() for file in export(name).files}
    main = tmp_path / f'model{FORMATS[name].suffix}'

    def write(**changed):
        for suffix, content in files.items():
            content = changed.get(suffix.strip('.'), content)
            path = main.with_suffix(suffix)
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)

    def refusal():
        with pytest.raises(ExportError) as error:
            load_exported(main)
        assert '\n' not in str(error.value)
        return str(error.value)

    write()
    load_exported(main)
    for suffix, content in files.items():
        write(**{suffix.strip('.'): content[: len(content) // 2]})
        message = refusal()
        assert 'model' in message
        assert 'copy it again, or export it' in message
        write(**{suffix.strip('.'): None})
        message = refusal()
        assert 'metadata, model.json' in message or f'model{suffix} is missing' in message

    # Whole, and yet not for this runtime.
    rubbish = {suffix.strip('.'): b'7\nrubbish' for suffix in files}
    write(**rubbish | dict(json=files['.json']))
    metadata = json.loads(files['.json'])
    suffixes = metadata.pop('files')
    assert f'{main}: {FORMATS[name].runtime} cannot load it' in refusal()
    metadata['format'] = 'other'
    main.with_suffix('.json').write_text(encode_sidecar(metadata, suffixes))
    assert "of the format 'other', which this version does not know" in refusal()


@pytest.mark.parametrize('name', ['onnx', 'opencv'])
def test_the_smallest_box_counts_pixels_of_the_image(trained, tmp_path, monkeypatch, name):
    root, checkpoint = trained
    image = cv2.imread(str(sorted((root / 'train').iterdir())[0]))
    # Of another ratio than the input's.
    image = cv2.resize(image, (3 * image.shape[1], 2 * image.shape[0]))
    file = tmp_path / 'image.png'
    cv2.imwrite(str(file), image)

    def detect(**changed):
        config = small_config(root)
        config.model.test_cfg.update(changed)
        detector = init_detector(config, str(checkpoint), device='cpu')
        return inference_detector(detector, image).pred_instances

    everything = detect()
    sides = (everything.bboxes[:, 2:] - everything.bboxes[:, :2]).amin(1).sort().values
    # Between two sides, so that rounding does not decide.
    between = int(sides.diff().argmax())
    smallest = float(sides[between : between + 2].mean())
    expected = detect(min_bbox_size=smallest)
    assert 0 < len(expected) < len(everything)
    # MMDetection changes the pipeline of the config that it runs.
    config = small_config(root)
    config.model.test_cfg.min_bbox_size = smallest
    out = tmp_path / f'model{FORMATS[name].suffix}'
    export_detector(config, checkpoint, out, name, exporter='torchscript', image=file)
    found = load_exported(out)(image)
    assert len(found) == len(expected)
    assert np.allclose(found.boxes, expected.bboxes.numpy(), atol=1e-2)
    monkeypatch.setattr('mmdet_hadaptive.export.export.read_web_page', lambda folder: {})
    with pytest.raises(ExportError, match=r'min_bbox_size counts pixels of the image, which the p'):
        export_detector(config, checkpoint, tmp_path / 'page', 'web')


def test_an_onnx_file_beside_metadata_of_another(export, tmp_path):
    for name in ('opencv', 'onnx'):
        for file in export(name).files:
            (tmp_path / f'model{file.suffix}').write_bytes(file.read_bytes())
    assert (tmp_path / 'model.json').is_file()
    assert load_exported(tmp_path / 'model.onnx').format == 'onnx'


def test_metadata_of_another_file_are_refused(export, tmp_path):
    for file in export('ncnn').files:
        (tmp_path / f'model{file.suffix}').write_bytes(file.read_bytes())
    other = tmp_path / 'model.xml'
    other.touch()
    with pytest.raises(ExportError, match=r'model.json belongs to model.param, not to model.xml'):
        load_exported(other)


@pytest.mark.parametrize(
    ('name', 'present'),
    [('openvino', 'model.bin'), ('opencv', 'model.json'), ('executorch', 'model.json')],
)
def test_what_belongs_to_another_is_not_replaced(trained, tmp_path, name, present):
    root, checkpoint = trained
    file = tmp_path / present
    file.write_text(json.dumps(dict(files={'.other': ''})))
    out = tmp_path / f'model{FORMATS[name].suffix}'
    with pytest.raises(ExportError, match=f'{present} would be replaced, which does not belong'):
        export_detector(small_config(root), checkpoint, out, name)
    assert [path.name for path in tmp_path.iterdir()] == [present]
    # An earlier export of the same format is.
    (tmp_path / 'model.json').write_text(json.dumps(dict(files={out.suffix: ''})))
    check_request(FORMATS[name], out, 'detections', 1)


@pytest.mark.parametrize('suffix', ['.onnx', '.xml', '.json'])
def test_files_that_do_not_exist(tmp_path, suffix):
    with pytest.raises(FileNotFoundError, match=f'nowhere{suffix}'):
        load_exported(tmp_path / f'nowhere{suffix}')


def test_a_runtime_that_is_not_installed_is_named(export, monkeypatch):
    file = export('opencv').file
    monkeypatch.setattr('hadaptive_runtime.loading.find_spec', lambda module: None)
    with pytest.raises(ExportError, match='OpenCV, which is not installed: pip install opencv'):
        load_exported(file)


@pytest.mark.parametrize(
    ('name', 'out', 'options', 'message'),
    [
        ('openvino', 'model.onnx', {}, r'must end in \.xml to run in OpenVINO: name model\.xml'),
        ('ncnn', 'model.param', dict(outputs='head'), r'--outputs head exists in ONNX only'),
        ('ncnn', 'model.param', dict(batch=2), r'for ncnn one image at a time.*a batch of 2'),
        ('opencv', 'model.onnx', dict(batch=None), r'a batch of any size: use --batch 1'),
        ('tensorrt', 'model.engine', {}, r"format must be one of onnx, .* got 'tensorrt'"),
    ],
)
def test_what_a_format_does_not_have(trained, tmp_path, name, out, options, message):
    root, checkpoint = trained
    with pytest.raises(ExportError, match=message):
        export_detector(small_config(root), checkpoint, tmp_path / out, name, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    out = tmp_path / 'model.onnx'
    out.mkdir()
    with pytest.raises(ExportError, match=r'model\.onnx is a folder: name a file in it'):
        check_request(FORMATS['onnx'], out, 'detections', 1)


def test_images_that_are_none(export, tmp_path):
    detector = load_exported(export('onnx').file)
    for shape, dtype in [((9, 9, 4), np.uint8), ((9, 9, 3), np.uint16), ((9, 9), np.uint8)]:
        with pytest.raises(ExportError, match=r'must have the shape \(H, W, 3\).*uint8') as error:
            detector(np.zeros(shape, dtype))
        assert f'got {shape}, {np.dtype(dtype)}' in str(error.value)
    (tmp_path / 'empty.jpg').touch()
    with pytest.raises(ExportError, match=r'empty\.jpg: empty: replace it'):
        detector(tmp_path / 'empty.jpg')
    with pytest.raises(ExportError, match=r'must have the shape \(B, 3, 192, 192\), got \(1, 3, 9'):
        detector.detect(np.zeros((1, 3, 96, 96), np.float32))
    cv2.imwrite(str(tmp_path / 'grey.png'), np.zeros((9, 9), np.uint8))
    detector(tmp_path / 'grey.png')
    cv2.imwrite(str(tmp_path / 'deep.png'), np.zeros((9, 9), np.uint16))
    with pytest.raises(ExportError, match=r'deep\.png.*16'):
        detector(tmp_path / 'deep.png')


def test_mmengine_can_test_every_format(export):
    assert ExportedDetector(export('opencv').file).detector.format == 'opencv'


def test_signals_are_handled_after_two_models_of_openvino(export):
    code = (
        'import os, signal, sys\n'
        'from hadaptive_runtime import load_exported\n'
        "signal.signal(signal.SIGUSR1, lambda *_: print('handled', flush=True))\n"
        'first, second = (load_exported(sys.argv[1]) for _ in range(2))\n'
        'del first\n'
        'del second\n'
        'os.kill(os.getpid(), signal.SIGUSR1)\n'
    )
    command = [sys.executable, '-c', code, export('openvino').file]
    assert subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout == b'handled\n'


def test_formats_are_benchmarked(trained, export, tmp_path, monkeypatch, pytestconfig, capsys):
    on_training_images(small_config(trained[0])).dump(tmp_path / 'config.py')
    monkeypatch.chdir(tmp_path)
    files = [export(name).file for name in ('onnx', 'opencv')]
    # Nothing has been built in the tool's own process.
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    command = ['benchmark_exported.py', 'config.py', *files, '--rounds', 3]
    monkeypatch.setattr('sys.argv', list(map(str, command)))
    tool = str(pytestconfig.rootpath / 'tools/benchmark_exported.py')
    runpy.run_path(tool, run_name='__main__')
    rows = [
        [cell.strip() for cell in line.split('|')[1:-1]]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith('| ')
    ]
    assert [row[:2] for row in rows[1:]] == [['onnx.onnx', 'onnx'], ['opencv.onnx', 'opencv']]
    # The same boxes, chosen in the graph and in NumPy.
    assert float(rows[1][2]) == pytest.approx(float(rows[2][2]), abs=1e-3)
    assert float(rows[1][2]) > 0.05
    assert rows[1][4] == '1.00 (1.00 to 1.00)'
    for row, file in zip(rows[1:], files, strict=True):
        assert float(row[3]) > 0
        assert float(row[5]) >= round(file.stat().st_size / 1e6, 2) > 0
    monkeypatch.setattr('sys.argv', list(map(str, [*command[:2], *files, *files])))
    with pytest.raises(SystemExit, match='name each file once'):
        runpy.run_path(tool, run_name='__main__')


def test_an_evaluation_that_dies_is_named_with_its_signal(trained, export, tmp_path, monkeypatch):
    # As a runtime's threads may end a process, without a message of Python's; only the evaluation
    # reads this config again.
    (tmp_path / 'deadly.py').write_text('import os\nos.abort()\n')
    monkeypatch.syspath_prepend(tmp_path)
    config = small_config(trained[0])
    config.custom_imports = dict(imports=['deadly'])
    file = export('opencv').file
    with pytest.raises(ExportError, match=rf'{file}: .* evaluated it ended \(SIGABRT\)') as error:
        benchmark_exported(config, [file], tmp_path, rounds=1)
    assert '\n' not in str(error.value)
