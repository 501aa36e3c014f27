import runpy
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

from hadaptive_runtime import load_exported
from mmdet_hadaptive.datasets import SHAPE_CLASSES, make_shapes
from mmdet_hadaptive.export import FORMATS, ExportError, export_detector, quantization
from mmdet_hadaptive.export.model_file import read_metadata

from .conftest import small_config

PACKAGES = {'onnx': 'onnxruntime', 'openvino': 'nncf'}
NAMES = [name for name, format in FORMATS.items() if format.quantize is not None]


def on_validation_images(config):
    """What a network learnt by heart, it detects."""
    dataset = config.val_dataloader.dataset
    dataset.ann_file = 'annotations/instances_train.json'
    dataset.data_prefix = dict(img='train/')
    config.val_evaluator.ann_file = dataset.data_root + dataset.ann_file
    return config


@pytest.fixture(scope='module')
def export(trained, tmp_path_factory):
    """Exports the trained model to a format, with and without INT8, once."""
    root, checkpoint = trained
    folder, made = tmp_path_factory.mktemp('quantization'), {}

    def export(name, int8=0.5):
        if find_spec(PACKAGES[name]) is None:
            pytest.skip(f'{PACKAGES[name]} is not installed')
        if (name, int8) not in made:
            out = folder / f'{name}{"_int8" if int8 else ""}{FORMATS[name].suffix}'
            config = on_validation_images(small_config(root))
            config.train_dataloader.dataset.times = 3
            # More images at a time than there are.
            made[name, int8] = export_detector(config, checkpoint, out, name, batch=3, int8=int8)
        return made[name, int8]

    return export


@pytest.mark.parametrize('name', NAMES)
def test_map_is_nearly_that_of_the_exported_model(name, export, trained):
    report = export(name).quantization
    # Each image once, however often the set is repeated.
    assert report.num_images == 4
    assert report.metric_before > 0.05
    assert report.metric_after > report.metric_before - 0.1
    lines = str(report).splitlines()
    assert lines == [
        f'INT8, measured on 4 training images: metric {report.metric_before:.4f}, now '
        f'{report.metric_after:.4f} (tolerance 0.5)'
    ]


@pytest.mark.parametrize('name', NAMES)
def test_what_is_written_is_the_quantised_model(name, export, trained):
    files = [export(name, int8).file for int8 in (None, 0.5)]
    before, after = map(read_metadata, files)
    for metadata in (before, after):
        metadata.pop('files', None)
    assert before == after
    image = sorted((trained[0] / 'train').iterdir())[0]
    ours, theirs = (load_exported(file)(image) for file in files)
    assert len(ours) > 0
    assert len(theirs) > 0
    assert not np.array_equal(ours.scores[:1], theirs.scores[:1])
    assert np.abs(ours.scores[0] - theirs.scores[0]) < 0.2


def test_onnx_quantises_dense_convolutions_and_nothing_else(export):
    model = onnx.load(export('onnx').file)
    made_by = {output: node for node in model.graph.node for output in node.output}
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    kinds = set()
    for node in model.graph.node:
        if node.op_type != 'Conv':
            continue
        sources = [made_by.get(name) for name in node.input]
        kinds.add(tuple(source and source.op_type for source in sources))
        if source := sources[1]:
            weight, scale = source.input[:2]
            assert len(shapes[weight]) == 4
            assert shapes[weight][1] > 1
            # One for each output channel.
            assert tuple(shapes[scale]) == (shapes[weight][0],)
        else:
            # Depthwise.
            assert shapes[node.input[1]][1] == 1
    assert ('DequantizeLinear',) * 3 in kinds
    assert None in {weight for _, weight, *_ in kinds}
    scorers = [node for node in model.graph.node if node.op_type == 'Gemm']
    assert scorers
    assert not any(name in made_by for node in scorers for name in node.input[1:])
    # Nothing takes quantised values but what turns them into numbers again.
    for node in model.graph.node:
        sources = {made_by[name].op_type for name in node.input if name in made_by}
        assert node.op_type == 'DequantizeLinear' or 'QuantizeLinear' not in sources


def test_ranges_are_measured_on_images_from_all_over_the_data_set(tmp_path):
    config = small_config(make_shapes(tmp_path / 'data', 7, 1))
    files = quantization.training_images(config, list(SHAPE_CLASSES), 3)
    assert [Path(file).stem for file in files] == ['000000', '000003', '000006']
    with pytest.raises(ExportError, match=r'detects cat, dog; the training data has disk, ring'):
        quantization.training_images(config, ['cat', 'dog'], 3)


@pytest.mark.parametrize(('scores', 'accepted'), [((0.545, 0.534), 0.011), ((0.5234, 0.4), 0.124)])
def test_more_loss_than_is_allowed_writes_nothing(scores, accepted, trained, tmp_path, monkeypatch):
    metrics = iter(scores)
    monkeypatch.setattr(quantization, 'make_evaluation', lambda config: lambda _: next(metrics))
    root, checkpoint = trained
    with pytest.raises(
        ExportError, match=f'falls from {scores[0]:.4f} to {scores[1]:.4f}.*--int8 {accepted},'
    ):
        export_detector(
            on_validation_images(small_config(root)),
            checkpoint,
            tmp_path / 'model.onnx',
            int8=0.01,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_finds_nothing_is_not_quantised(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(quantization, 'make_evaluation', lambda config: lambda detector: 0.0)
    root, checkpoint = trained
    out = tmp_path / 'model.onnx'
    with pytest.raises(ExportError, match='mAP of the model is 0 without INT8, so nothing'):
        export_detector(on_validation_images(small_config(root)), checkpoint, out, int8=0.01)
    assert not out.exists()


def test_ranges_are_measured_on_no_truncated_image(trained, tmp_path):
    root = shutil.copytree(trained[0], tmp_path / 'data')
    image = sorted((root / 'train').iterdir())[-1]
    image.write_bytes(image.read_bytes()[:1000])
    out = tmp_path / 'out.onnx'
    with pytest.raises(ExportError, match='truncated') as error:
        export_detector(small_config(root), trained[1], out, int8=1)
    assert str(image) in str(error.value)
    assert '\n' not in str(error.value)
    assert not out.exists()


def no_training_data(config):
    config.train_dataloader = None


def no_annotations(config):
    config.train_dataloader.dataset.dataset.ann_file = 'nowhere.json'


def no_validation_data(config):
    config.val_dataloader = config.val_evaluator = config.val_cfg = None


@pytest.mark.parametrize(
    ('change', 'options', 'message'),
    [
        (no_training_data, {}, r'no train_dataloader'),
        (no_annotations, {}, r'training data cannot be read: .*nowhere\.json'),
        (no_validation_data, {}, r'cannot be quantised: the config has no validation data'),
        (None, dict(int8=-0.1), r'must be at least 0, got -0\.1'),
        (None, dict(outputs='head'), r'which --outputs head does not give'),
        (None, dict(format='ncnn'), r'not offered for ncnn: leave out --int8, or .*openvino'),
    ],
)
def test_refusals_write_nothing(trained, tmp_path, change, options, message):
    root, checkpoint = trained
    config = small_config(root)
    if change is not None:
        change(config)
    out = tmp_path / f'model{FORMATS[options.get("format", "onnx")].suffix}'
    options = dict(int8=0.01) | options
    with pytest.raises(ExportError, match=message):
        export_detector(config, checkpoint, out, **options)
    assert list(tmp_path.iterdir()) == []


def test_tool(trained, tmp_path, monkeypatch, pytestconfig, capsys):
    root, checkpoint = trained
    on_validation_images(small_config(root)).dump(tmp_path / 'config.py')
    monkeypatch.chdir(tmp_path)
    command = ['export.py', 'config.py', checkpoint, 'new/int8.onnx', '--int8', 0.4]
    command += ['--prune', 1]
    monkeypatch.setattr('sys.argv', list(map(str, command)))
    runpy.run_path(str(pytestconfig.rootpath / 'tools/export.py'), run_name='__main__')
    output = capsys.readouterr().out
    assert 'products removed: stage3.1; kept: nothing' in output
    assert 'INT8, measured on 4 training images: metric' in output
    model = onnx.load('new/int8.onnx')
    assert 'QuantizeLinear' in {node.op_type for node in model.graph.node}
