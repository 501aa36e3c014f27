"""Detections chosen in NumPy, against MMDetection's own."""

import numpy as np
import onnx
import pytest
import torch

from hadaptive_runtime.suppression import choose_detections
from mmdet_hadaptive.export import ExportNetwork
from mmdet_hadaptive.export.onnx_nms import append_nms, describe_nms

from .test_network import ATSS, FCOS, HEADS, PREPROCESSING, SIZE, build, random_outputs


@pytest.mark.parametrize(('name', 'min_side'), [(HEADS[0], 8), (ATSS, 8), (FCOS, -1)])
def test_detections_are_those_of_mmdet(name, min_side, monkeypatch):
    detector = build(name)
    head = detector.bbox_head
    head.test_cfg.update(min_bbox_size=min_side, nms_pre=300)
    network = ExportNetwork(detector, 'detections', PREPROCESSING, select=False)
    outputs = random_outputs(detector)
    monkeypatch.setattr(detector, 'forward', lambda images, mode: outputs)
    with torch.no_grad():
        predicted = [output[0].numpy() for output in network(torch.zeros(1, 3, *SIZE))]
        (expected,) = head.predict_by_feat(*outputs, batch_img_metas=[dict(img_shape=SIZE)])
    assert network.output_names == ['boxes', 'scores', 'factors'][: len(predicted)]
    factors = predicted[2] if len(predicted) > 2 else None
    settings = describe_nms(head.test_cfg, network)
    boxes, scores, labels = choose_detections(*predicted[:2], factors, settings)
    assert len(boxes) == len(expected) > 50
    assert np.allclose(scores, expected.scores.numpy(), atol=1e-6)
    # Neighbours whose scores differ in the last bit may change places.
    assert (labels == expected.labels.numpy()).mean() > 0.98
    assert (np.abs(boxes - expected.bboxes.numpy()).max(1) < 1e-3).mean() > 0.98


def test_overlaps():
    boxes = np.float32([[0, 0, 9, 9], [0, 0, 9, 10], [50, 50, 60, 60], [0, 0, 9, 9.5]])
    scores = np.float32([[0.5, 0.1], [0.9, 0.6], [0.3, 0.2], [0.8, 0.05]])
    settings = dict(
        priors_per_level=[3, 1],
        candidates_per_level=-1,
        score_threshold=0.1,
        iou_threshold=0.5,
        min_box_side=-1,
        max_detections=10,
    )
    found = choose_detections(boxes, scores, None, settings)
    # The threshold itself is not enough; each class is suppressed by itself, over all levels.
    assert found[0].tolist() == [[0, 0, 9, 10], [0, 0, 9, 10], [50, 50, 60, 60], [50, 50, 60, 60]]
    assert np.allclose(found[1], [0.9, 0.6, 0.3, 0.2])
    assert found[2].tolist() == [0, 1, 0, 1]
    few = choose_detections(boxes, scores, None, settings | dict(max_detections=2))
    assert few[2].tolist() == [0, 1]
    # The best pair of each level.
    best = choose_detections(boxes, scores, None, settings | dict(candidates_per_level=1))
    assert best[0].tolist() == [[0, 0, 9, 10]]
    weighted = choose_detections(boxes, scores, np.float32([[1], [0.1], [1], [1]]), settings)
    assert weighted[0][0].tolist() == [0, 0, 9, 9.5]
    assert choose_detections(boxes, 0 * scores, None, settings)[0].shape == (0, 4)


def test_the_graph_suits_converters_to_half_precision():
    """They name casts after nodes, and leave NonMaxSuppression and its inputs as they are."""
    shapes = dict(candidate_boxes=[1, 9, 4], candidate_scores=[1, 9], candidate_labels=[1, 9])
    values = [
        onnx.helper.make_tensor_value_info(
            name,
            onnx.TensorProto.INT64 if 'labels' in name else onnx.TensorProto.FLOAT,
            shape,
        )
        for name, shape in {**shapes, 'class_scores': [1, 2, 9]}.items()
    ]
    model = onnx.helper.make_model(onnx.helper.make_graph([], 'empty', values, values))
    append_nms(model, dict(max_detections=5, iou_threshold=0.5))
    names = [node.name for node in model.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    constants = {tensor.name for tensor in model.graph.initializer}
    used = [(node.op_type, name) for node in model.graph.node for name in node.input]
    of_nms = {name for kind, name in used if kind == 'NonMaxSuppression'} & constants
    assert len(of_nms) == 3
    assert not [pair for pair in used if pair[1] in of_nms and pair[0] != 'NonMaxSuppression']
