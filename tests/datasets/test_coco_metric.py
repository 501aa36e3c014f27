import json
import sys

import numpy as np
import pytest
from mmdet.evaluation import CocoMetric
from mmdet.evaluation.metrics import coco_metric
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_hadaptive.datasets import FastCocoMetric

CLASSES = ('cat', 'dog', 'cow')
ITEMS = ['mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l']
ITEMS += ['AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000']


@pytest.fixture(scope='module')
def faster():
    return pytest.importorskip('faster_coco_eval')


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """An annotation file with boxes of all sizes and crowds, and detections near them or not."""
    rng = np.random.default_rng(0)
    images, annotations, detections = [], [], []
    for image_id in range(1, 11):
        images.append(dict(id=image_id, file_name=f'{image_id}.jpg', width=640, height=480))
        corners = rng.uniform(0, 300, (12, 2))
        sizes = np.exp(rng.uniform(1, 5.7, (12, 2)))
        labels = rng.integers(0, 3, 12)
        # The last image has no boxes.
        for box, label in zip(np.hstack([corners, sizes]), labels, strict=True):
            if image_id < 10:
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=image_id,
                        category_id=int(label) + 1,
                        bbox=box.tolist(),
                        area=float(box[2] * box[3]),
                        iscrowd=int(rng.random() < 0.1),
                    )
                )
        near = np.repeat(np.hstack([corners, sizes]), 40, axis=0)
        near *= rng.normal(1, 0.1, near.shape)
        near[:, 2:] += near[:, :2]
        detections.append(
            dict(
                img_id=image_id,
                bboxes=near.astype(np.float32),
                # Few values, so that many are equal.
                scores=rng.integers(1, 9, len(near)) / np.float32(10),
                labels=np.where(rng.random(len(near)) < 0.8, np.repeat(labels, 40), 0),
            )
        )
    file = tmp_path_factory.mktemp('metric') / 'coco.json'
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    file.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return file, [({}, detection) for detection in detections]


def evaluate(cls, results, **options):
    file, detections = results
    metric = cls(ann_file=str(file), metric='bbox', **options)
    metric.dataset_meta = dict(classes=CLASSES)
    return metric, metric.compute_metrics(detections)


def test_all_numbers_are_those_of_pycocotools(faster, results):
    options = dict(classwise=True, metric_items=ITEMS)
    _, theirs = evaluate(CocoMetric, results, **options)
    _, ours = evaluate(FastCocoMetric, results, **options)
    assert list(ours) == list(theirs)
    assert len(ours) >= len(ITEMS) + len(CLASSES)
    np.testing.assert_equal(dict(ours), dict(theirs))
    assert 0.01 < ours['bbox_mAP'] < 0.95


@pytest.mark.parametrize('max_dets', [[1, 10, 100], [100, 300, 1000]])
def test_statistics_are_the_same_before_they_are_rounded(faster, results, max_dets):
    file, detections = results
    metric, _ = evaluate(CocoMetric, results)
    boxes = metric.results2json([d for _, d in detections], str(file.with_suffix('')))['bbox']
    fast = FastCocoMetric.compute_metrics.__globals__['COCOeval']
    stats = []
    for evaluator in (COCOeval, fast):
        truth = COCO(str(file))
        evaluation = evaluator(truth, truth.loadRes(boxes), 'bbox')
        evaluation.params.maxDets = max_dets
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        stats.append(evaluation.stats)
    assert len(stats[0]) == len(stats[1]) == 12
    # What more than 100 detections of a class change can be seen.
    assert max_dets[-1] == 100 or stats[0][6] < stats[0][7]
    np.testing.assert_allclose(stats[1], stats[0], rtol=0, atol=1e-12)


def test_nothing_else_is_replaced(faster):
    assert coco_metric.COCOeval is COCOeval
    assert sys.modules['pycocotools'].__name__ == 'pycocotools'
    assert COCOeval.__module__ == 'pycocotools.cocoeval'


def test_it_is_replaced_for_as_long_as_the_computation(faster, monkeypatch):
    seen = []
    monkeypatch.setattr(
        coco_metric.CocoMetric,
        'compute_metrics',
        lambda self, results: seen.append(coco_metric.COCOeval) or {},
    )
    assert FastCocoMetric.compute_metrics(object.__new__(FastCocoMetric), []) == {}
    assert issubclass(seen[0].func, faster.COCOeval_faster)
    assert coco_metric.COCOeval is COCOeval
