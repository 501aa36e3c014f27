import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from hadaptive_runtime import Detections
from mmdet_hadaptive.export import ExportError
from mmdet_hadaptive.export.comparison import compare_outputs


def test_difference_of_outputs():
    expected = [np.zeros((2, 3), np.float32), np.zeros(4, np.float32)]
    actual = [np.zeros((2, 3), np.float32), np.full(4, 0.25, np.float32)]
    assert compare_outputs(expected, actual, 'a.jpg', 0.5) == 0.25
    with pytest.raises(ExportError, match=r'differ by 2\.50e-01 on a\.jpg'):
        compare_outputs(expected, actual, 'a.jpg', 0.1)
    # Also where others are equal.
    actual[1][2] = np.nan
    with pytest.raises(ExportError, match='differ by nan'):
        compare_outputs(expected, actual, 'a.jpg', 0.5)
    with pytest.raises(ExportError, match='differ by nan'):
        compare_outputs(expected[::-1], actual[::-1], 'a.jpg', 0.5)


def instances(boxes, scores, labels):
    return InstanceData(
        bboxes=torch.tensor(boxes).view(-1, 4),
        scores=torch.tensor(scores),
        labels=torch.tensor(labels, dtype=torch.int64),
    )


def found(boxes, scores, labels):
    names = [str(label) for label in labels]
    return Detections(np.float32(boxes).reshape(-1, 4), np.float32(scores), np.int64(labels), names)


@pytest.mark.parametrize(
    ('boxes', 'scores', 'labels', 'difference'),
    [
        # In another order.
        ([[0, 0, 9, 9.5], [1, 2, 3, 4]], [0.8, 0.9], [1, 0], 0.5),
        ([[1, 2, 3, 4], [0, 0, 9, 9]], [0.9, 0.4], [0, 1], 0.4),
        ([[1, 2, 3, 4], [0, 0, 9, 9]], [0.9, 0.8], [0, 0], np.inf),
        ([[1, 2, 3, 4]], [0.9], [0], np.inf),
        ([], [], [], np.inf),
        ([[1, 2, 3, 4], [0, 0, 9, 9], [1, 2, 3, 4]], [0.9, 0.8, 0.1], [0, 1, 2], np.inf),
        ([[1, 2, 3, 4], [0, 0, np.nan, 9]], [0.9, 0.8], [0, 1], np.nan),
    ],
)
def test_difference_of_detections(boxes, scores, labels, difference):
    expected = [instances([[1.0, 2, 3, 4], [0, 0, 9, 9]], [0.9, 0.8], [0, 1])]
    actual = [found(boxes, scores, labels)]
    if np.isfinite(difference):
        assert compare_outputs(expected, actual, 'a.jpg', 0.6) == pytest.approx(difference)
    else:
        with pytest.raises(ExportError, match=f'NCNN and PyTorch differ by {difference}'):
            compare_outputs(expected, actual, 'a.jpg', 0.6, 'NCNN')


def test_nothing_is_detected():
    expected, actual = [instances([], [], [])], [found([], [], [])]
    with pytest.raises(ExportError, match='neither PyTorch nor ONNX Runtime detects anything'):
        compare_outputs(expected, actual, 'a.jpg', 0.1)
    assert compare_outputs(expected, actual, 'a.jpg', None) == 0
