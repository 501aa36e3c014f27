import sys
from types import ModuleType

import numpy as np
import pytest

from hadaptive_runtime import Detections, ExportError, Preprocessing

PLAIN = ((0.0,) * 3, (1.0,) * 3, (0.0,) * 3)


@pytest.mark.parametrize(
    ('width', 'height', 'resized'),
    # 33.5 and more becomes 34, below it 33; what is thinner than half a pixel has one.
    [(640, 134, (160, 34)), (640, 133, (160, 33)), (67, 96, (67, 96)), (1000, 2, (160, 1))],
)
def test_lengths_are_rounded_as_mmcv_rounds_them(width, height, resized):
    preprocessing = Preprocessing((96, 160), (96, 160), True, 'BGR', *PLAIN)
    image = np.full((height, width, 3), 7, np.uint8)
    canvas, factors = preprocessing.prepare(image)
    assert factors.tolist() == pytest.approx([resized[0] / width, resized[1] / height])
    assert (canvas > 0).sum() == 3 * resized[0] * resized[1]


@pytest.mark.parametrize(('height', 'width'), [(48, 320), (400, 80), (96, 160)])
def test_boxes_end_where_the_image_ends(make_detector, height, width):
    found = make_detector(keep_ratio=False)(np.zeros((height, width, 3), np.uint8))
    assert found.boxes[0].tolist() == [0, 0, width, height]
    x, y = width / 160, height / 96
    assert np.allclose(found.boxes[1], [10 * x, 20 * y, 40 * x, 60 * y])


def test_the_smallest_box_counts_pixels_of_the_image(make_detector):
    # 30 x 40 pixels of the input.
    detector = make_detector(
        keep_ratio=False,
        outputs=dict(
            boxes=np.float32([[[10, 20, 40, 60]]]), scores=np.float32([[[0.9]]]), labels=None
        ),
        classes=['cat'],
        priors_per_level=[1],
        candidates_per_level=-1,
        score_threshold=0.1,
        iou_threshold=0.5,
        min_box_side=35,
        max_detections=10,
    )
    sizes = {(96, 160): 0, (192, 320): 1, (96, 320): 1, (192, 160): 0, (48, 1600): 0}
    for size, count in sizes.items():
        assert len(detector(np.zeros((*size, 3), np.uint8))) == count, size
    inputs = np.zeros((2, 3, 96, 160), np.float32)
    factors = np.float32([[1, 1], [0.5, 0.5]])
    assert [len(found) for found in detector.detect(inputs, factors)] == [0, 1]
    assert detector.detect(inputs[:0]) == []


FOUND = Detections(
    np.float32([[1, 2, 3, 4], [5, 6, 7, 8]]), np.float32([0.9, 0.4]), np.int64([1, 0]), ['b', 'a']
)


def test_detections_above_a_threshold():
    assert [len(FOUND.above(score)) for score in (0, 0.4, 0.5, 1)] == [2, 2, 1, 0]
    assert FOUND.above(0.5).class_names == ['b']


@pytest.mark.parametrize('found', [FOUND, FOUND.above(1)])
def test_detections_for_supervision(found):
    pytest.importorskip('supervision')
    theirs = found.to_supervision()
    assert len(theirs) == len(found)
    assert np.array_equal(theirs.xyxy, found.boxes)
    assert np.array_equal(theirs.confidence, found.scores)
    assert np.array_equal(theirs.class_id, found.labels)
    assert list(theirs['class_name']) == found.class_names


def test_supervision_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'supervision', None)
    with pytest.raises(ExportError, match='pip install supervision'):
        FOUND.to_supervision()


def test_tiles(make_detector):
    pytest.importorskip('supervision')
    from hadaptive_runtime.tiles import detect_in_tiles

    detector = make_detector(size=(100, 100), keep_ratio=False)

    # A box around the bright pixels of each channel of what it sees.
    def run(inputs):
        places = [np.nonzero(channel > 0)[::-1] for channel in inputs[0]]
        boxes = [[*np.min(xy, 1), *(np.max(xy, 1) + 1)] for xy in places if len(xy[0])]
        boxes = np.float32(boxes).reshape(1, -1, 4)
        scores = (boxes[..., 2:] - boxes[..., :2]).prod(2) / 1000
        return dict(boxes=boxes, scores=scores, labels=np.ones(scores.shape, np.int64))

    detector.session = detector.session._replace(run=run)
    image = np.zeros((300, 400, 3), np.uint8)
    # The second one lies over the edge of a tile, and whole in its neighbour. The last two overlap,
    # and a tile sees both.
    boxes = [[10, 20, 30, 40], [75, 110, 95, 130], [350, 250, 365, 270], [352, 252, 366, 272]]
    for (x1, y1, x2, y2), channel in zip(boxes, (0, 0, 0, 1), strict=True):
        image[y1:y2, x1:x2, channel] = 255
    found = detect_in_tiles(detector, 100)(image)
    assert sorted(found.boxes.tolist()) == boxes
    assert (np.diff(found.scores) <= 0).all()
    assert found.class_names == ['dog'] * 4
    image = np.ascontiguousarray(image[200:, 300:])
    found = detect_in_tiles(detector, 100)(image)
    assert np.array_equal(found.boxes, detector(image).boxes)
    assert len(found) == 2
    for size in (50, 150):
        nothing = detect_in_tiles(detector, 100)(np.zeros((size, size, 3), np.uint8))
        assert nothing.boxes.shape == (0, 4)


def test_a_runtime_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    from hadaptive_runtime import load_exported, loading
    from hadaptive_runtime.model_file import encode_sidecar

    file = tmp_path / 'model.param'
    file.touch()
    file.with_suffix('.json').write_text(encode_sidecar(dict(format='ncnn'), ['.param']))
    monkeypatch.setattr(loading, 'find_spec', lambda name: ModuleType(name))
    for error, message in {
        ImportError('libgomp.so.1: no such file'): r'libgomp.so.1: no such file\): pip install --f',
        AttributeError('_ARRAY_API not found'): r'_ARRAY_API not found\): pip install --force-re',
        ModuleNotFoundError("No module named 'tqdm'", name='tqdm'): r"tqdm'\): pip install tqdm$",
    }.items():

        def fail(name, error=error):
            raise error

        monkeypatch.setattr(loading, 'import_module', fail)
        with pytest.raises(ExportError, match='ncnn, which is installed but cannot be') as raised:
            load_exported(file)
        assert raised.match(message)
        assert '\n' not in str(raised.value)
