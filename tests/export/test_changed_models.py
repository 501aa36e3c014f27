"""ONNX files that other tools have changed: simplified, quantised, in half precision."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from hadaptive_runtime import Preprocessing, load_exported
from mmdet_hadaptive.export.model_file import read_metadata

from .conftest import constant_model

SIZE = (96, 160)
PREPROCESSING = Preprocessing(SIZE, SIZE, False, 'BGR', (0.0,) * 3, (1.0,) * 3, (0.0,) * 3)
IMAGE = np.zeros((*SIZE, 3), np.uint8)


def rename(model):
    model.graph.name, model.producer_name = 'changed', 'a tool'


def add_metadata(model):
    # As onnxsim and ONNX Runtime's quantisation do.
    model.metadata_props.add(key='onnxsim.mutable_initializer', value='False')
    model.metadata_props.add(key='onnx.infer', value='onnxruntime.quant')


def halve(model):
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16


@pytest.mark.parametrize('change', [rename, add_metadata, halve])
def test_changed_models_are_loaded(tmp_path, change):
    file = constant_model(tmp_path / 'model.onnx', PREPROCESSING)
    expected = load_exported(file)(IMAGE)
    model = onnx.load(file)
    change(model)
    onnx.save(model, file)
    found = load_exported(file)(IMAGE)
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert np.array_equal(found.boxes, expected.boxes)
    assert np.allclose(found.scores, expected.scores, atol=1e-3)
    assert found.class_names == expected.class_names
    assert read_metadata(file)['classes'] == load_exported(file).classes


def test_weights_beside_the_file(tmp_path):
    """As tools write models of more than two gigabytes."""
    file = constant_model(tmp_path / 'model.onnx', PREPROCESSING)
    options = dict(save_as_external_data=True, location='weights', size_threshold=0)
    onnx.save(onnx.load(file), file, **options)
    assert (tmp_path / 'weights').is_file()
    assert len(load_exported(file)(IMAGE)) == 2


@pytest.mark.parametrize('text', ['{"files": [".onnx"]}', '{"images": []}', '[', ''])
def test_json_of_any_kind_beside_the_file(tmp_path, text):
    file = constant_model(tmp_path / 'model.onnx', PREPROCESSING)
    file.with_suffix('.json').write_text(text)
    assert len(load_exported(file)(IMAGE)) == 2
