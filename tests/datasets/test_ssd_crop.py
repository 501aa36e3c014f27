import copy

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import Expand, MinIoURandomCrop, Resize
from mmdet.structures.bbox import HorizontalBoxes
from PIL import Image
from scipy.ndimage import gaussian_filter

from mmdet_hadaptive.datasets import LoadSSDCrop, ssd_crop

MEAN = (123.675, 116.28, 103.53)
SCALE = (48, 40)
SIZE = (97, 71)


@pytest.fixture(scope='module')
def image_file(tmp_path_factory):
    # Without fine detail, so that interpolations can be compared.
    noise = np.random.default_rng(0).normal(size=(*SIZE[::-1], 3))
    smooth = gaussian_filter(noise, (3, 3, 0))
    pixels = 255 * (smooth - smooth.min()) / np.ptp(smooth)
    file = tmp_path_factory.mktemp('crop') / 'image.png'
    Image.fromarray(pixels.astype(np.uint8)).save(file)
    return file


def annotated(file, num_boxes, seed=0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 0.6, (num_boxes, 2)) * SIZE
    sizes = rng.uniform(0.05, 0.4, (num_boxes, 2)) * SIZE
    return dict(
        img_path=str(file),
        gt_bboxes=HorizontalBoxes(torch.from_numpy(np.hstack([corners, corners + sizes])).float()),
        gt_bboxes_labels=np.arange(num_boxes),
        gt_ignore_flags=rng.integers(0, 2, num_boxes).astype(bool),
    )


def load_as_mmdet(results):
    with Image.open(results['img_path']) as image:
        results['img'] = np.array(image)[..., ::-1]
    results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
    for transform in (Expand(MEAN, True, (1, 4)), MinIoURandomCrop(), Resize(SCALE)):
        results = transform(results)
    return results


class Draws:
    """Random numbers that are the same for both, although they ask for them in different ways."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.expand = iter(self.rng.random(4))
        self.candidates = self.candidate = None

    def randint(self, high):
        self.candidates = self.rng.random((50, 2, 2))
        self.next_candidate = iter(self.candidates)
        return int(self.rng.integers(high))

    def choice(self, values):
        return values[self.randint(len(values))]

    def random_sample(self, shape):
        assert shape == self.candidates.shape
        return self.candidates

    def uniform(self, low, high=None):
        if self.candidates is None:
            draw = next(self.expand)
        else:
            # Width and height, of which a candidate may be refused; then left and top.
            if high is not None and not (self.candidate and len(self.candidate) == 3):
                self.candidate = next(self.next_candidate).ravel().tolist()
            draw = self.candidate.pop(0)
        high = 1.0 if high is None else high
        return low + (high - low) * draw


def both(monkeypatch, file, num_boxes, seed):
    results = []
    for transform in (load_as_mmdet, LoadSSDCrop(SCALE, MEAN).transform):
        draws = Draws(seed)
        with monkeypatch.context() as patch:
            for name in ('uniform', 'randint', 'choice', 'random_sample'):
                patch.setattr(np.random, name, getattr(draws, name))
            results.append(transform(annotated(file, num_boxes, seed)))
    return results


@pytest.mark.parametrize('num_boxes', [0, 1, 2, 12])
def test_same_draws_same_crop(monkeypatch, image_file, num_boxes):
    expanded = 0
    for seed in range(30):
        theirs, ours = both(monkeypatch, image_file, num_boxes, seed)
        assert ours['gt_bboxes'].tensor.dtype == torch.float32
        assert torch.equal(ours['gt_bboxes'].tensor, theirs['gt_bboxes'].tensor)
        for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
            assert np.array_equal(ours[key], theirs[key])
            assert ours[key].dtype == theirs[key].dtype
        for key in ('img_shape', 'ori_shape', 'scale', 'scale_factor', 'keep_ratio'):
            assert ours[key] == theirs[key], key
        assert ours['img'].dtype == theirs['img'].dtype == np.uint8
        is_expanded = np.random.default_rng(seed).random() <= 0.5
        expanded += is_expanded
        if not is_expanded:
            assert np.array_equal(ours['img'], theirs['img'])
            continue
        difference = np.abs(ours['img'].astype(int) - theirs['img'])
        if min(ours['scale_factor']) > 1:
            # Magnified: beyond the border MMDetection repeats a pixel, here is the next one.
            width = int(max(ours['scale_factor'])) + 1
            difference = difference[width:-width, width:-width]
        # OpenCV before 4.12 rounds positions to 1/32 of a pixel.
        assert difference.max() <= 8
        assert difference.mean() < 0.5
    assert 8 < expanded < 22


def test_images_too_large_for_opencv_to_warp(monkeypatch, image_file):
    def crop(seed):
        np.random.seed(seed)
        return LoadSSDCrop(SCALE, MEAN, expand_prob=1.0)(annotated(image_file, 3))['img']

    expected = [crop(seed) for seed in range(20)]
    monkeypatch.setattr(ssd_crop, '_MAX_WARPED', SIZE[0] - 1)
    monkeypatch.setattr(cv2, 'warpAffine', None)
    for seed, image in enumerate(expected):
        difference = np.abs(crop(seed).astype(int) - image)
        # Positions are rounded to 1/32 of a pixel.
        assert difference.max() <= 8
        assert difference.mean() < 0.5


def test_numbers_follow_from_the_seed(image_file):
    def crop(seed):
        np.random.seed(seed)
        return LoadSSDCrop(SCALE, MEAN)(annotated(image_file, 3))['img']

    assert np.array_equal(crop(1), crop(1))
    assert not np.array_equal(crop(1), crop(2))


def test_what_it_cannot_crop_is_refused(image_file):
    for key in ('gt_masks', 'gt_seg_map'):
        with pytest.raises(ValueError, match=f'not {key}.*MinIoURandomCrop'):
            LoadSSDCrop(SCALE, MEAN)({**annotated(image_file, 1), key: None})


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(expand_ratio=(0.5, 2)), 'expand_ratio must be 1 <= low <= high, got'),
        (dict(expand_ratio=(3, 2)), 'expand_ratio must be 1 <= low <= high, got'),
        (dict(expand_prob=1.5), 'expand_prob must be from 0 to 1, got 1.5'),
        (dict(min_crop_size=0), 'min_crop_size must be in'),
    ],
)
def test_options_out_of_their_limits(options, message):
    with pytest.raises(ValueError, match=message):
        LoadSSDCrop(SCALE, MEAN, **options)


def test_annotations_are_not_changed_in_place(image_file):
    before = annotated(image_file, 5)
    boxes = copy.deepcopy(before['gt_bboxes'].tensor)
    given = before['gt_bboxes'].tensor
    for seed in range(5):
        np.random.seed(seed)
        LoadSSDCrop(SCALE, MEAN)(dict(before))
    assert torch.equal(given, boxes)
