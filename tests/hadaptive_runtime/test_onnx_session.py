import pytest
import torch

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')


@pytest.mark.parametrize('as_file', [False, True])
def test_threads(tmp_path, as_file):
    from hadaptive_runtime.onnx_session import create_session

    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in 'xy')
    graph = onnx.helper.make_graph([onnx.helper.make_node('Identity', ['x'], ['y'])], 'g', [x], [y])
    opset = [onnx.helper.make_opsetid('', 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    if as_file:
        (tmp_path / 'model.onnx').write_bytes(model)
        model = tmp_path / 'model.onnx'
    wanted = torch.get_num_threads() + 2
    for threads, expected in ((wanted, wanted), (None, 0)):
        session = create_session(model, threads)
        assert session.get_session_options().intra_op_num_threads == expected
        assert session.get_providers() == ['CPUExecutionProvider']
