import numpy as np
import pytest
from onnx import TensorProto, helper

from hadaptive_runtime import ExportError, Preprocessing
from hadaptive_runtime.model_file import encode_sidecar
from hadaptive_runtime.timing import describe_exit, time_in_turn
from mmdet_hadaptive.export import encode_model

SIZE = (8, 8)
INPUTS = np.zeros((1, 3, *SIZE), np.float32)
PREPROCESSING = Preprocessing(SIZE, SIZE, False, 'BGR', (0.0,) * 3, (1.0,) * 3, (0.0,) * 3)


def matrix_product(file, side):
    """An ONNX file, of mode nms as far as its metadata go, that takes a time."""
    shapes = dict(images=[1, 3, *SIZE], matrix=[side, side])
    values = {k: helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in shapes.items()}
    ones = helper.make_node(
        'ConstantOfShape',
        ['shape'],
        ['ones'],
        value=helper.make_tensor('one', TensorProto.FLOAT, [1], [1.0]),
    )
    # Only then it is not computed once and for all.
    nodes = [
        helper.make_node('ReduceMax', ['images'], ['most'], keepdims=0),
        ones,
        helper.make_node('Add', ['ones', 'most'], ['same']),
        helper.make_node('MatMul', ['same', 'same'], ['matrix']),
    ]
    shape = helper.make_tensor('shape', TensorProto.INT64, [2], [side, side])
    graph = helper.make_graph(nodes, 'g', [values['images']], [values['matrix']], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=8)
    metadata = dict(mode='nms', classes=['cat'], **PREPROCESSING.metadata())
    file.write_bytes(encode_model(model, metadata))
    return file


@pytest.fixture
def dying(tmp_path, monkeypatch):
    """A file whose runtime dies, as its threads do it, without a message of Python's."""
    (tmp_path / 'ncnn.py').write_text(
        "import os, signal, sys\nprint('oh no', file=sys.stderr, flush=True)\n"
        'os.kill(os.getpid(), signal.SIGSEGV)\n'
    )
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    metadata = dict(format='ncnn', mode='nms', batch=1, classes=['cat'], outputs={})
    metadata |= PREPROCESSING.metadata()
    file = tmp_path / 'dying.param'
    for suffix in ('.param', '.bin'):
        file.with_suffix(suffix).write_text('nothing')
    file.with_suffix('.json').write_text(encode_sidecar(metadata, ['.param', '.bin']))
    return file


def test_times_are_those_of_the_files(tmp_path):
    files = {str(n): matrix_product(tmp_path / f'{n}.onnx', n) for n in (2, 1000)}
    seconds = time_in_turn(files, dict.fromkeys(files, INPUTS), 1, 3, whole=False)
    assert [len(values) for values in seconds.values()] == [3, 3]
    assert 0 < max(seconds['2']) < min(seconds['1000']) < 10
    with pytest.raises(ValueError, match='rounds must be at least 1, got 0'):
        time_in_turn(files, dict.fromkeys(files, INPUTS), 1, 0)


def test_a_process_that_dies_is_named_with_its_signal(dying, tmp_path):
    files = {'whole': matrix_product(tmp_path / 'whole.onnx', 2), 'dying': dying}
    with pytest.raises(ExportError, match=r'dying\.param: .* ended \(SIGSEGV.*oh no') as error:
        time_in_turn(files, dict.fromkeys(files, INPUTS), 1, 1, whole=False)
    assert '\n' not in str(error.value)


def test_what_cannot_be_loaded_is_named(tmp_path):
    file = tmp_path / 'broken.onnx'
    file.write_bytes(matrix_product(file, 2).read_bytes()[:-1])
    with pytest.raises(
        ExportError, match=r'ONNX Runtime cannot load \S*broken\.onnx .*copy it again'
    ):
        time_in_turn({'broken': file}, {'broken': INPUTS}, 1, 1)


@pytest.mark.parametrize(
    ('code', 'text'), [(0, 'exit status 0'), (3, 'exit status 3'), (-6, 'SIGABRT'), (-40, '40')]
)
def test_how_a_process_ended(code, text):
    assert text in describe_exit(code)
