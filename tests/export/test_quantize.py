import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from hadaptive_runtime.onnx_session import create_session
from mmdet_hadaptive.datasets import make_shapes
from mmdet_hadaptive.export import (
    ExportError,
    encode_model,
    evaluate_exported,
    export_detector,
    quantize,
    quantize_onnx,
    read_preprocessing,
)
from mmdet_hadaptive.export.images import run_pipeline

from .conftest import on_training_images, small_config


@pytest.fixture(scope='module')
def exported(trained, tmp_path_factory):
    """The trained model in mode nms, for batches of 3: more than the last one holds."""
    root, checkpoint = trained
    out = tmp_path_factory.mktemp('quantize') / 'float.onnx'
    export_detector(small_config(root), checkpoint, out, batch=3, exporter='torchscript')
    return out


@pytest.fixture(scope='module')
def quantized(trained, exported):
    out = exported.with_name('int8.onnx')
    config = small_config(trained[0])
    config.train_dataloader.dataset.times = 3
    report = quantize_onnx(config, exported, out)
    # Each image once, however often the set is repeated.
    assert report.num_images == 4
    assert report.file == out
    return out


def test_dense_convolutions_are_quantised_and_nothing_else(quantized):
    model = onnx.load(quantized)
    made_by = {output: node for node in model.graph.node for output in node.output}
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == 'Conv']
    kinds = set()
    for node in convolutions:
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


def test_metadata_stay_and_the_weights_shrink(exported, quantized):
    models = [onnx.load(file) for file in (exported, quantized)]
    before, after = ({entry.key: entry.value for entry in m.metadata_props} for m in models)
    assert before.pop('sha256') != after.pop('sha256')
    assert before == after
    # In the files of so small a network, the names of the nodes outweigh the weights.
    before, after = (
        sum(len(tensor.raw_data) for tensor in model.graph.initializer if len(tensor.dims) == 4)
        for model in models
    )
    assert 0 < after < 0.5 * before
    sessions = [create_session(file) for file in (exported, quantized)]
    (ours, theirs) = ([(o.name, o.shape) for o in s.get_outputs()] for s in sessions)
    assert ours == theirs


def test_map_is_nearly_that_of_the_exported_model(trained, exported, quantized, tmp_path):
    before, after = (
        evaluate_exported(on_training_images(small_config(trained[0])), file, tmp_path)
        for file in (exported, quantized)
    )
    assert before['coco/bbox_mAP'] > 0.05
    assert after['coco/bbox_mAP_50'] > before['coco/bbox_mAP_50'] - 0.1


def test_features_of_a_backbone_are_close(trained, tmp_path):
    root, checkpoint = trained
    files = tmp_path / 'float.onnx', tmp_path / 'int8.onnx'
    export_detector(
        small_config(root),
        checkpoint,
        files[0],
        mode='backbone',
        batch=None,
        exporter='torchscript',
    )
    quantize_onnx(small_config(root), *files, num_images=2)
    preprocessing = read_preprocessing(small_config(root))
    # Any number of images.
    images = np.stack(
        [
            preprocessing.canvas(run_pipeline(small_config(root), file))
            for file in sorted((root / 'train').iterdir())
        ]
    )
    ours, theirs = (create_session(file).run(None, {'images': images}) for file in files)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).mean() < 0.25 * np.abs(a).mean()
        assert not np.array_equal(a, b)


@pytest.fixture
def features(untrained, tmp_path):
    """The features of an untrained backbone, for images of a size of their own."""
    out = tmp_path / 'features.onnx'
    export_detector(
        small_config(untrained[0]),
        untrained[1],
        out,
        mode='backbone',
        size=(96, 160),
        exporter='torchscript',
    )
    return out


def test_ranges_are_measured_on_images_from_all_over_the_data_set(features, tmp_path, monkeypatch):
    root = make_shapes(tmp_path / 'data', 7, 1)
    measured = []

    def read(config, file):
        image = run_pipeline(config, file)
        measured.append((Path(file).stem, image.shape))
        return image

    monkeypatch.setattr(quantize, 'run_pipeline', read)
    quantize_onnx(small_config(root), features, tmp_path / 'int8.onnx', num_images=3)
    # Of the size that the model was exported for; the first is tried again at the end.
    assert measured == [(f'{i:06}', (96, 160, 3)) for i in (0, 3, 6, 0)]


def test_a_model_that_gives_nan_is_not_written(untrained, features, tmp_path, monkeypatch):
    def spoil(prepared, quantized, *args, **kwargs):
        model = onnx.load(prepared)
        for tensor in model.graph.initializer:
            if len(tensor.dims) == 4:
                tensor.raw_data = np.full(tensor.dims, np.nan, np.float32).tobytes()
        onnx.save(model, quantized)

    monkeypatch.setattr(quantize, 'quantize_static', spoil)
    with pytest.raises(ExportError, match=r'gives NaN or infinite values for .*000000\.png'):
        quantize_onnx(small_config(untrained[0]), features, tmp_path / 'int8.onnx')
    assert not (tmp_path / 'int8.onnx').exists()


def not_onnx(file, config):
    file.write_text('nothing')


def quantised_already(file, config):
    shutil.copy(file.with_name('int8.onnx'), file)


def other_classes(file, config):
    model = onnx.load(file)
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props[:-1]}
    file.write_bytes(encode_model(model, metadata | dict(classes=['cat', 'dog'])))


def no_training_data(file, config):
    config.train_dataloader = None


def no_annotations(file, config):
    config.train_dataloader.dataset.dataset.ann_file = 'nowhere.json'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (not_onnx, r'damaged, or was not written by this package'),
        (quantised_already, r'is quantised already'),
        (other_classes, r'detects cat, dog; the training data has disk, ring'),
        (no_training_data, r'no train_dataloader'),
        (no_annotations, r'training data cannot be read: .*nowhere\.json'),
        (None, r'at least 1 image'),
    ],
)
def test_refusals_leave_the_file_alone(trained, quantized, tmp_path, change, message):
    file, out = tmp_path / 'float.onnx', tmp_path / 'out.onnx'
    shutil.copy(quantized.with_name('float.onnx'), file)
    shutil.copy(quantized, tmp_path)
    out.write_text('before')
    config = small_config(trained[0])
    if change is not None:
        change(file, config)
    with pytest.raises(ExportError, match=message):
        quantize_onnx(config, file, out, num_images=0 if change is None else 2)
    assert out.read_text() == 'before'


def test_a_model_that_cannot_be_calibrated_leaves_the_file_alone(trained, exported, tmp_path):
    out = tmp_path / 'out.onnx'
    out.write_text('before')
    config = small_config(trained[0])
    config.test_dataloader.dataset.pipeline[1].keep_ratio = True
    config.test_dataloader.dataset.pipeline.insert(2, dict(type='Pad', size_divisor=200))
    with pytest.raises(ExportError, match=r'export with a --size'):
        quantize_onnx(config, exported, out)
    assert [file.name for file in tmp_path.iterdir()] == ['out.onnx']
    assert out.read_text() == 'before'


def test_tool(trained, exported, tmp_path, monkeypatch, pytestconfig, capsys):
    small_config(trained[0]).dump(tmp_path / 'config.py')
    monkeypatch.chdir(tmp_path)
    command = ['quantize_onnx.py', 'config.py', exported, 'new/int8.onnx', '--num-images', 2]
    monkeypatch.setattr('sys.argv', list(map(str, command)))
    runpy.run_path(str(pytestconfig.rootpath / 'tools/quantize_onnx.py'), run_name='__main__')
    assert 'measured on 2 images' in capsys.readouterr().out
    assert (tmp_path / 'new/int8.onnx').is_file()
