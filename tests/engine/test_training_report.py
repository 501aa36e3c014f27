import csv
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_hadaptive.engine.training_report import (
    TrainingReportHook,
    choose_classes,
    count_boxes,
    draw_confusion,
    match_detections,
    plot_curves,
    readable_names,
)

BOX = [10.0, 10.0, 30.0, 30.0]
# An IoU of 0.68 with the first, and of 0 with the last.
NEAR, FAR = [12.0, 12.0, 32.0, 32.0], [60.0, 60.0, 90.0, 90.0]


def instances(*items, scores=None):
    boxes = torch.tensor([box for box, _ in items]).view(-1, 4)
    data = InstanceData(bboxes=boxes, labels=torch.tensor([label for _, label in items]).long())
    if scores is not None:
        data.scores = torch.tensor(scores)
    return data


def sample_of(truth, found, scores=None, ignored=(), path='image.png'):
    scores = [0.9] * len(found) if scores is None else scores
    return DetDataSample(
        metainfo=dict(img_path=str(path)),
        gt_instances=instances(*truth),
        pred_instances=instances(*found, scores=scores),
        ignored_instances=instances(*ignored),
    )


@pytest.mark.parametrize(
    ('truth', 'found', 'counts', 'pairs'),
    [
        ([(BOX, 0)], [(NEAR, 0)], (1, 0, 0, 0), [(0, 0)]),
        ([(BOX, 0)], [(NEAR, 1)], (0, 1, 0, 0), [(0, 1)]),
        ([(BOX, 0)], [(FAR, 0)], (0, 0, 1, 1), [(0, -1), (-1, 0)]),
        # A box is found once, by its own class if that is there.
        ([(BOX, 0)], [(BOX, 1), (NEAR, 0)], (1, 0, 0, 1), [(0, 0), (-1, 1)]),
        ([(BOX, 0), (NEAR, 1)], [(NEAR, 0)], (1, 0, 1, 0), [(0, 0), (1, -1)]),
        ([], [], (0, 0, 0, 0), []),
    ],
)
def test_detections_stand_for_boxes(truth, found, counts, pairs):
    result = match_detections(sample_of(truth, found))
    assert result.counts == counts
    assert result.pairs == pairs


def test_what_does_not_count():
    sample = sample_of([], [(BOX, 0), (FAR, 0)], scores=[0.2, 0.9], ignored=[(FAR, 0)])
    result = match_detections(sample)
    assert not result.pairs
    assert result.rank[0] == 1


class Boxes:
    """A data set of MMDetection's, as much as is needed."""

    def __init__(self):
        self.metainfo = dict(classes=('cat', 'dog'))

    def __len__(self):
        return 2

    def get_data_info(self, index):
        flags = [0, 1] if index else [0]
        return dict(instances=[dict(bbox_label=index, ignore_flag=flag) for flag in flags])


def test_boxes_are_counted_below_wrappers():
    assert count_boxes(SimpleNamespace(dataset=SimpleNamespace(dataset=Boxes()))) == {0: 1, 1: 1}


@pytest.fixture
def runner(tmp_path):
    folder = tmp_path / '20260101_000000/vis_data'
    folder.mkdir(parents=True)
    records = [dict(step=1, loss=2.0), {'step': 1, 'coco/bbox_mAP': 0.5}]
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, records)))
    loader = SimpleNamespace(dataset=Boxes())
    return SimpleNamespace(
        work_dir=str(tmp_path),
        val_dataloader=loader,
        train_dataloader=loader,
        logger=SimpleNamespace(info=print),
    )


def rows(path):
    return list(csv.reader(path.read_text('utf-8-sig').splitlines()))


def test_the_report_of_the_last_validation(runner, tmp_path):
    hook = TrainingReportHook(num_worst=2)
    for i in range(4):
        cv2.imwrite(str(tmp_path / f'{i}.png'), np.full((100, 100, 3), 255, np.uint8))
    for truth in ([(FAR, 1)] * 9, [(BOX, 0)]):
        hook.before_val_epoch(runner)
        samples = [sample_of(truth, [(NEAR, 0)] * i, path=tmp_path / f'{i}.png') for i in range(4)]
        # The sampler repeats an image, so that each process has as many.
        for batch in (samples[:2], samples[2:], samples[:1]):
            hook.after_val_iter(runner, 0, outputs=batch)
        hook.after_val_epoch(runner, {'coco/cat_precision': 0.25})
    # What another training has left is replaced.
    (tmp_path / 'report/worst').mkdir(parents=True)
    (tmp_path / 'report/worst/old.jpg').touch()
    hook.after_train(runner)
    report = tmp_path / 'report'
    assert rows(report / 'classes.csv')[1:] == [
        ['0', 'cat', '0.25', '1', '4'],
        ['1', 'dog', '', '1', '0'],
    ]
    # A box that is missed, and one that is found three times.
    assert [row[1:] for row in rows(report / 'worst.csv')[1:]] == [
        [str(tmp_path / '0.png'), '0', '0', '1', '0'],
        [str(tmp_path / '3.png'), '1', '0', '0', '2'],
    ]
    names = {str(path.relative_to(report)) for path in report.rglob('*.*')}
    pictures = {'curves.png', 'confusion_matrix.png', 'worst/01_0.jpg', 'worst/02_3.jpg'}
    assert names == pictures | {'classes.csv', 'worst.csv'}
    left, right = np.hsplit(cv2.imread(str(report / 'worst/02_3.jpg')).astype(int), 2)
    # Boxes over white, in other places.
    assert (left < 128).any()
    assert (right < 128).any()
    assert (abs(left - right) > 100).any()


def test_a_training_that_was_finished_already_keeps_its_report(runner, tmp_path):
    TrainingReportHook().after_train(runner)
    assert not (tmp_path / 'report').exists()


def test_validations_without_boxes_or_detections(runner, tmp_path):
    hook = TrainingReportHook()
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, outputs=[DetDataSample(metainfo=dict(img_path='a.png'))])
    hook.after_val_epoch(runner, {})
    hook.after_train(runner)
    assert len(rows(tmp_path / 'report/classes.csv')) == 3


@pytest.mark.parametrize('count', [3, 90])
def test_confusions_of_many_classes(count):
    matrix = np.eye(count + 1, dtype=int)
    names = readable_names(['a$b$', '猫', *map(str, range(count - 2))])
    assert names[:2] == [r'a\$b\$', 'class 1']
    picture = cv2.imdecode(np.frombuffer(draw_confusion(matrix, names), np.uint8), 1)
    assert min(picture.shape[:2]) > 300


def test_the_classes_with_the_most_errors_are_drawn():
    matrix = np.diag([9, 9, 9, 9, 9])
    # The second is taken for the fourth, and the fourth is not found.
    matrix[1, 3], matrix[3, 4] = 3, 1
    assert choose_classes(matrix, 2) == [1, 3, 4]
    assert choose_classes(matrix, 9) == [0, 1, 2, 3, 4]


def test_curves(tmp_path):
    records = [dict(step=i, loss=9.0 / i, loss_cls=6.0 / i, loss_bbox=3.0 / i) for i in (1, 2, 3)]
    records += [
        {'step': i, 'coco/bbox_mAP': m, 'coco/bbox_mAP_50': 0.5} for i, m in ((1, -1), (2, 0.3))
    ]
    scalars = tmp_path / 'scalars.json'
    scalars.write_text('\n'.join(map(json.dumps, records)))
    plot_curves([scalars], tmp_path / 'curves.png', 'title')
    picture = cv2.imread(str(tmp_path / 'curves.png'))
    # Not an empty page: lines of several colours.
    assert len({tuple(pixel) for pixel in picture.reshape(-1, 3)[::7]}) > 10


def test_losses_and_scores_have_axes_of_their_own(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *args, **kwargs: figures.append(figure))
    records = [{'step': i, 'loss': 9.0 / i} for i in (1, 3)]
    records += [{'step': i, 'coco/bbox_mAP': m} for i, m in ((1, -1), (2, 0.3))]
    # The second one is that of a run that was resumed from the second step.
    files = [tmp_path / f'{i}.json' for i in range(2)]
    # The first one was killed while it wrote.
    lines = [*map(json.dumps, [*records, dict(step=3, loss=99.0)]), '{"loss": 3.1, "st']
    files[0].write_text('\n'.join(lines))
    files[1].write_text(json.dumps(dict(step=3, loss=3.0)))
    plot_curves(files, tmp_path / 'curves.png', 'title')
    drawn = [
        {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axis.get_lines()}
        for axis in figures[0].axes
    ]
    # No prediction at all, -1, is drawn as 0.
    assert drawn == [{'loss': [(1, 9.0), (3, 3.0)]}, {'mAP': [(1, 0), (2, 0.3)]}]
