import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

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


def detections(boxes, scores, labels):
    return InstanceData(
        bboxes=torch.tensor(boxes).view(-1, 4),
        scores=torch.tensor(scores),
        labels=torch.tensor(labels, dtype=torch.int64),
    )


@pytest.mark.parametrize(
    ('boxes', 'scores', 'labels', 'difference'),
    [
        # In another order, and with rows that hold nothing.
        ([[0, 0, 9, 9.5], [1, 2, 3, 4], [7, 7, 7, 7]], [0.8, 0.9, 0.0], [1, 0, -1], 0.5),
        ([[1, 2, 3, 4], [0, 0, 9, 9], [7, 7, 7, 7]], [0.9, 0.4, 0.0], [0, 1, -1], 0.4),
        ([[1, 2, 3, 4], [0, 0, 9, 9], [7, 7, 7, 7]], [0.9, 0.8, 0.0], [0, 0, -1], np.inf),
        ([[1, 2, 3, 4], [7, 7, 7, 7], [7, 7, 7, 7]], [0.9, 0.0, 0.0], [0, -1, -1], np.inf),
        ([[1, 2, 3, 4], [0, 0, 9, 9], [1, 2, 3, 4]], [0.9, 0.8, 0.1], [0, 1, 2], np.inf),
        ([[1, 2, 3, 4], [0, 0, np.nan, 9], [7, 7, 7, 7]], [0.9, 0.8, 0.0], [0, 1, -1], np.nan),
    ],
)
def test_difference_of_detections(boxes, scores, labels, difference):
    expected = [detections([[1.0, 2, 3, 4], [0, 0, 9, 9]], [0.9, 0.8], [0, 1])]
    actual = [np.float32([boxes]), np.float32([scores]), np.int64([labels])]
    if np.isfinite(difference):
        assert compare_outputs(expected, actual, 'a.jpg', 0.6) == pytest.approx(difference)
    else:
        with pytest.raises(ExportError, match=f'differ by {difference}'):
            compare_outputs(expected, actual, 'a.jpg', 0.6)


def test_nothing_is_detected():
    expected = [detections([], [], [])]
    actual = [np.zeros((1, 1, 4), np.float32), np.zeros((1, 1), np.float32), np.int64([[-1]])]
    with pytest.raises(ExportError, match='neither PyTorch nor ONNX Runtime detects anything'):
        compare_outputs(expected, actual, 'a.jpg', 0.1)
    assert compare_outputs(expected, actual, 'a.jpg', np.inf) == 0
