import io
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip, Resize
from PIL import Image
from scipy.ndimage import gaussian_filter

from mmdet_hadaptive.datasets import LoadCheckedImage, PackPlanes

SIZE = (97, 71)
FLIPS = [None, 'horizontal', 'vertical', 'diagonal']


@pytest.fixture(scope='module')
def content():
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(*SIZE[::-1], 3)), (3, 3, 0))
    pixels = 255 * (noise - noise.min()) / np.ptp(noise)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, 'JPEG', quality=90)
    return buffer.getvalue()


@pytest.fixture
def annotated(content, tmp_path):
    file = tmp_path / 'image.jpg'
    file.write_bytes(content)
    boxes = [[3.3, 5.1, 40.7, 60.2], [0, 0, 97, 71], [50.5, 20.25, 51.75, 22]]
    instances = [
        dict(bbox=box, bbox_label=label, ignore_flag=label % 2) for label, box in enumerate(boxes)
    ]
    return lambda: dict(
        img_path=str(file), img_id=1, height=SIZE[1], width=SIZE[0], instances=list(instances)
    )


@pytest.mark.parametrize('scale', [(200, 150), (60, 40)], ids=['larger', 'smaller'])
@pytest.mark.parametrize('direction', FLIPS)
def test_the_pipeline_gives_what_that_of_mmdet_gives(annotated, direction, scale):
    results = []
    for load, pack in (
        (LoadImageFromFile(imdecode_backend='pillow'), PackDetInputs()),
        (LoadCheckedImage(), PackPlanes()),
    ):
        flip = RandomFlip(prob=0.0 if direction is None else 1.0, direction=direction or FLIPS[1])
        sample = annotated()
        for step in (load, LoadAnnotations(), Resize(scale, keep_ratio=True), flip, pack):
            sample = step(sample)
        results.append(sample)
    theirs, ours = results
    assert ours['inputs'].dtype == torch.uint8
    assert ours['inputs'].is_contiguous()
    assert torch.equal(ours['inputs'], theirs['inputs'])
    assert ours['data_samples'].metainfo == theirs['data_samples'].metainfo
    for kind in ('gt_instances', 'ignored_instances'):
        boxes, wanted = (sample['data_samples'].get(kind) for sample in (ours, theirs))
        assert len(wanted) > 0
        assert torch.equal(boxes.bboxes.tensor, wanted.bboxes.tensor)
        assert torch.equal(boxes.labels, wanted.labels)


@pytest.mark.parametrize('channels', [1, 3, 4])
@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_flipped_images_are_packed(channels, dtype):
    image = np.random.default_rng(0).integers(0, 256, (7, 5, channels)).astype(dtype)
    for turned in (image, image[:, ::-1], image[::-1], image[::-1, ::-1], image[1:5, 1:4][:, ::-1]):
        before = turned.copy()
        packed = PackPlanes(meta_keys=())(dict(img=turned))['inputs']
        assert np.array_equal(packed.numpy(), before.transpose(2, 0, 1))
        assert np.array_equal(turned, before)


def test_planes_are_copied_once():
    results = dict(img=np.zeros((7, 5, 3), np.uint8))
    packed = PackPlanes(meta_keys=())(results)['inputs']
    assert np.shares_memory(packed.numpy(), results['img'])


def test_what_has_no_image_is_packed():
    assert 'inputs' not in PackPlanes(meta_keys=())({})
    assert PackPlanes(meta_keys=())(dict(img=np.zeros((7, 5))))['inputs'].shape == (1, 7, 5)


def test_truncated_images_are_refused(content, annotated):
    sample = annotated()
    Path(sample['img_path']).write_bytes(content[: len(content) * 9 // 10])
    with pytest.raises(OSError, match='truncated'):
        LoadCheckedImage()(sample)
