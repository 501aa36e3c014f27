"""Altered annotation files and images: findings, or MMDetection loads them; never a traceback."""

import copy
import json
import math

import numpy as np
import pytest
from coco_check import check_coco
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from PIL import Image

FUZZ = settings.get_profile('fuzz')
CLASSES = ('cat', 'dog')
GOOD = dict(
    images=[
        dict(id=1, file_name='a.jpg', width=60, height=40),
        dict(id=2, file_name='sub/b.png', width=60, height=40),
    ],
    annotations=[
        dict(id=1, image_id=1, category_id=10, bbox=[5, 5, 20, 20], area=400, iscrowd=0),
        dict(id=2, image_id=2, category_id=20, bbox=[0, 0, 60, 40], area=2400, iscrowd=1),
    ],
    categories=[dict(id=10, name='cat'), dict(id=20, name='dog')],
)
STRANGE = st.sampled_from(
    [
        None, True, False, 0, 1, 2, 10, -1, 2**63, 10**400, 0.5, 1.0, -1e308, 1e308,
        math.nan, math.inf, '', 'cat', '1', 'a.jpg', '.', '..', '/', '../a.jpg', '/etc/hostname',
        './a.jpg', 'sub/../a.jpg', 'sub', 'a.jpg/', 'x' * 300, 'a\0', 'a\nb', '\ud800', [], {},
        [1], [5, 5, 20, 20], [0, 0, 1e308, 1e308], [1, 2, 3, '4'], {'id': 1},
    ]
)  # fmt: skip
VALUES = STRANGE | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


def find_paths(value, path=()):
    """The paths of all parts of a nested value."""
    yield path
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from find_paths(item, (*path, key))


@st.composite
def altered_files(draw):
    """The text of an annotation file after one to three changes."""
    coco = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        if not coco:
            break
        *parents, key = draw(st.sampled_from(list(find_paths(coco))[1:]))
        inner = coco
        for parent in parents:
            inner = inner[parent]
        kind = draw(st.sampled_from(['replace', 'replace', 'replace', 'remove', 'repeat']))
        if kind == 'remove':
            del inner[key]
        elif kind == 'repeat' and isinstance(inner, list):
            inner.append(copy.deepcopy(inner[key]))
        else:
            inner[key] = draw(VALUES)
    text = json.dumps(coco)
    if draw(st.integers(0, 9)) == 0:
        text = text[: draw(st.integers(0, len(text)))]
    return text


def write_image(path, mode, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)
    Image.fromarray(pixels, 'RGBA').convert(mode).save(path, **options)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('fuzz')
    (folder / 'images' / 'sub').mkdir(parents=True)
    write_image(folder / 'images' / 'a.jpg', 'RGB')
    write_image(folder / 'images' / 'sub' / 'b.png', 'RGB')
    return folder


@FUZZ
@given(text=altered_files(), test_mode=st.booleans())
def test_annotation_files(folder, text, test_mode):
    file = folder / 'coco.json'
    file.write_text(text)
    findings = check_coco(file, folder / 'images', CLASSES, read_images=True, test_mode=test_mode)
    for finding in findings:
        assert finding.describe(3).isprintable()
    if any(finding.is_error for finding in findings):
        return
    data = CocoDataset(
        ann_file='coco.json',
        data_root=str(folder),
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=CLASSES),
        pipeline=[dict(type='LoadImageFromFile', imdecode_backend='pillow')],
        test_mode=test_mode,
    )
    assert len(data) == len(json.loads(text)['images'])
    for index in range(len(data)):
        info = data[index]
        assert info['img'].shape == (info['height'], info['width'], 3)
        for instance in info['instances']:
            assert instance['bbox_label'] in (0, 1)
            assert instance['ignore_flag'] in (0, 1)


IMAGES = {
    'RGB.jpg': dict(mode='RGB'),
    'progressive.jpg': dict(mode='RGB', progressive=True),
    'L.jpg': dict(mode='L'),
    'CMYK.jpg': dict(mode='CMYK'),
    'RGB.png': dict(mode='RGB'),
    'RGBA.png': dict(mode='RGBA'),
    'P.png': dict(mode='P'),
    'RGB.bmp': dict(mode='RGB'),
    'RGB.tiff': dict(mode='RGB'),
    'P.gif': dict(mode='P'),
    'RGB.webp': dict(mode='RGB'),
}


@FUZZ
@given(name=st.sampled_from(sorted(IMAGES)), data=st.data())
def test_images(folder, name, data):
    path = folder / 'images' / name
    write_image(path, **IMAGES[name])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        # Headers are where a change matters most.
        start = data.draw(st.integers(0, 60) | st.integers(0, len(content) - 1))
        new = data.draw(st.binary(min_size=1, max_size=6))
        content[start : start + len(new)] = new
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    path.write_bytes(content)
    image = dict(id=1, file_name=name, width=60, height=40)
    file = folder / 'coco.json'
    file.write_text(json.dumps({**GOOD, 'images': [image], 'annotations': []}))
    findings = check_coco(file, folder / 'images', CLASSES, read_images=True, test_mode=True)
    try:
        loaded = LoadImageFromFile(imdecode_backend='pillow')(dict(img_path=str(path)))['img']
    except Exception:
        loaded = None
    (finding,) = findings or [None]
    assert (finding is None) == (loaded is not None and loaded.shape == (40, 60, 3)) or (
        'have not 8 bits' in finding.problem
    )
    if finding:
        assert str(path) in finding.describe()
        assert finding.describe().isprintable()
