import copy
import json
import re

import cv2
import numpy as np
import pytest
from coco_check import check_coco
from mmdet.datasets.transforms import RandomFlip, YOLOXHSVRandomAug
from PIL import Image

from mmdet_hadaptive.datasets import CheckedCocoDataset

CLASSES = ('cat', 'dog')
GOOD = dict(
    images=[
        dict(id=1, file_name='a.jpg', width=60, height=40),
        dict(id=2, file_name='b.png', width=60, height=40),
    ],
    annotations=[
        dict(id=1, image_id=1, category_id=10, bbox=[5, 5, 20, 20], area=400, iscrowd=0),
        dict(id=2, image_id=2, category_id=20, bbox=[0, 0, 60, 40], area=2400, iscrowd=0),
    ],
    categories=[dict(id=10, name='cat'), dict(id=20, name='dog')],
)


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / 'images'
    images.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for item in GOOD['images']:
        Image.fromarray(noise).save(images / item['file_name'])
    return tmp_path


def write(folder, coco):
    file = folder / 'coco.json'
    file.write_text(coco if isinstance(coco, str) else json.dumps(coco))
    return file


def check(folder, coco, classes=CLASSES):
    return check_coco(write(folder, coco), folder / 'images', classes, read_images=True)


def changed(table, index, **values):
    coco = copy.deepcopy(GOOD)
    coco[table][index].update(values)
    return coco


def test_nothing_wrong(folder):
    assert check(folder, GOOD) == []


ERRORS = {
    'no JSON': ('{"images": [', 'not readable JSON'),
    'no COCO': ([1, 2], 'has no list of images, annotations, categories'),
    'no categories': ({**GOOD, 'categories': None}, 'has no list of categories'),
    'missing keys': (
        {**GOOD, 'annotations': [dict(id=1, bbox=[0, 0, 5, 5])]},
        r'1 annotations lack one of id, image_id.*\(annotations\[0\]\)',
    ),
    'repeated ids': (changed('annotations', 1, id=1), r'ids of annotations are not unique \(1\)'),
    'repeated ids of images': (
        {**GOOD, 'images': [*GOOD['images'], GOOD['images'][0]]},
        r'ids of images are not unique \(1\)',
    ),
    'repeated ids of categories': (
        {**GOOD, 'categories': [*GOOD['categories'], dict(id=10, name='bird')]},
        r'ids of categories are not unique \(10\)',
    ),
    'no iscrowd': (
        {
            **GOOD,
            'annotations': [{k: v for k, v in GOOD['annotations'][0].items() if k != 'iscrowd'}],
        },
        '1 annotations lack one of .*iscrowd',
    ),
    'size as text': (
        changed('images', 0, width='60'),
        r"width or height is not a positive number \(images\[0\]: width='60'\)",
    ),
    'area as text': (
        changed('annotations', 0, area='400'),
        r"area is not a number \(annotations\[0\]: area='400'\)",
    ),
    'unknown category': (
        changed('annotations', 0, category_id=30),
        r'category_id that does not exist \(annotation 1: category 30\)',
    ),
    'unknown image': (
        changed('annotations', 0, image_id=7),
        r'image that does not exist \(annotation 1: image 7\)',
    ),
    'not a box': (changed('annotations', 0, bbox=[1, 2, 3]), r'four finite numbers.*annotation 1'),
    'NaN in a box': (changed('annotations', 0, bbox=[1, 2, float('nan'), 3]), 'four finite'),
    'missing file': (changed('images', 0, file_name='c.jpg'), r'do not exist \(.*c\.jpg\)'),
    'wrong size': (changed('images', 0, width=50), r'another size.*a\.jpg: \(60, 40\).*\(50, 40\)'),
    'no annotations': ({**GOOD, 'annotations': []}, 'there are no annotations'),
    'no images': ({**GOOD, 'images': [], 'annotations': []}, 'there are no images'),
    'nested too deep': ('[' * 100_000, 'not readable JSON'),
    'id of an image as a list': (
        changed('images', 0, id=[1]),
        r'images whose id is not an integer \(images\[0\]: id=\[1\]\)',
    ),
    'id of an annotation as text': (
        changed('annotations', 1, id='2'),
        r"id or image_id or category_id is not an integer \(annotations\[1\]: id='2'\)",
    ),
    'image_id as a dict': (
        changed('annotations', 1, image_id={}),
        r'annotations\[1\]: image_id=\{\}',
    ),
    'category_id as a truth value': (
        changed('annotations', 0, category_id=True),
        r'annotations\[0\]: category_id=True',
    ),
    'iscrowd as text': (changed('annotations', 0, iscrowd='no'), r"iscrowd is not 0 or 1.*'no'"),
    'area beyond all limits': (changed('annotations', 0, area=10**400), 'area is not a number'),
    'name of a category as a list': (
        changed('categories', 0, name=['cat']),
        r'categories whose name is not a string',
    ),
    'repeated names': (
        changed('categories', 1, name='cat'),
        r'the name of several categories of .* \(cat\)',
    ),
    **{
        f'file name {name!r}': (
            changed('images', 0, file_name=name),
            r'images whose file_name is not the name of a file \(images\[0\]: file_name=',
        )
        for name in (7, None, ['a.jpg'], '', 'a.jpg/', 'a\0.jpg', '\ud800.jpg')
    },
    'all crowds': (
        {**GOOD, 'annotations': [{**item, 'iscrowd': 1} for item in GOOD['annotations']]},
        'none of the 2 boxes is learned: they are crowds',
    ),
    'other classes': (
        {**GOOD, 'categories': [dict(id=10, name='Cat'), dict(id=20, name='dog')]},
        r"classes \['cat'\] that .* does not have; it has \['Cat', 'dog'\].*num_classes=2",
    ),
    'other order': (
        {**GOOD, 'categories': GOOD['categories'][::-1]},
        r"labels would carry wrong names. Set metainfo=dict\(classes=\('dog', 'cat'\)\)",
    ),
}


@pytest.mark.parametrize('name', ERRORS)
def test_errors(folder, name):
    coco, message = ERRORS[name]
    errors = [finding for finding in check(folder, coco) if finding.is_error]
    assert len(errors) == 1
    assert re.search(message, errors[0].describe()), errors[0]


NOTES = {
    'no area': (changed('annotations', 0, bbox=[5, 5, 0, 9]), '1 boxes have no area'),
    'outside': (
        changed('annotations', 0, bbox=[70, 5, 9, 9]),
        '1 boxes have less than one pixel inside',
    ),
    'beyond': (changed('annotations', 0, bbox=[50, 5, 20, 9]), '1 boxes reach beyond'),
    'leaves the folder': (
        changed('images', 0, file_name='../images/a.jpg'),
        r'1 file names are absolute or lead out of the image folder \(\.\./images/a\.jpg\)',
    ),
    'id 0': (changed('annotations', 0, id=0), r'1 annotations have the id 0 \(annotations\[0\]\)'),
    'box twice': (
        {
            **GOOD,
            'annotations': [
                *GOOD['annotations'],
                dict(GOOD['annotations'][0], id=7, bbox=[5.2, 5, 20, 20]),
            ],
        },
        r'1 boxes are there more than once, with the same class \(annotation 7 like 1\)',
    ),
    'bare image': (changed('annotations', 1, image_id=1), r'1 images have no annotations \(b.png'),
}


@pytest.mark.parametrize('name', NOTES)
def test_notes(folder, name):
    coco, message = NOTES[name]
    (finding,) = check(folder, coco)
    assert not finding.is_error
    assert re.search(message, finding.describe()), finding


def test_one_error_does_not_hide_the_others(folder):
    coco = changed('annotations', 0, category_id=30)
    coco['annotations'][1]['bbox'] = [70, 5, 9, 9]
    coco['images'].append(dict(id=3, file_name='none.jpg', width=5, height=5))
    (folder / 'images' / 'b.png').write_bytes(b'')
    text = '\n'.join(finding.describe() for finding in check(folder, coco))
    for problem in ('category 30', 'none.jpg', 'b.png: cannot identify', '1 boxes have less'):
        assert problem in text


def test_all_places_are_named(folder):
    coco = changed('images', 0)
    coco['images'] += [dict(id=i, file_name=f'{i}.jpg', width=5, height=5) for i in range(10, 20)]
    (error,) = [finding for finding in check(folder, coco) if finding.is_error]
    assert all(f'{i}.jpg' in error.describe() for i in range(10, 20))
    assert error.describe(2).count('.jpg') == 2
    assert '...' in error.describe(2)


def test_absolute_file_names_are_noted(folder):
    name = str(folder / 'images' / 'a.jpg')
    (finding,) = check(folder, changed('images', 0, file_name=name))
    assert not finding.is_error
    assert name in finding.describe()


def test_images_that_are_listed_twice(folder):
    coco = copy.deepcopy(GOOD)
    coco['images'].append(dict(GOOD['images'][0], id=9))
    texts = [finding.describe() for finding in check(folder, coco)]
    assert any('1 images are listed more than once (a.jpg: ids 1, 9)' in text for text in texts)


def test_images_in_subfolders(folder):
    (folder / 'images' / 'sub').mkdir()
    (folder / 'images' / 'a.jpg').rename(folder / 'images' / 'sub' / 'a.jpg')
    coco = changed('images', 0, file_name='sub/a.jpg')
    assert check(folder, coco) == []
    assert len(dataset(folder, coco)) == 2
    # It lies in the other folder.
    coco['images'][1]['file_name'] = 'sub/b.png'
    (finding,) = check(folder, coco)
    assert re.search(r'1 image files do not exist \(.*images/sub/b\.png\)', finding.describe())


def test_folders_are_no_images(folder):
    (folder / 'images' / 'c.jpg').mkdir()
    findings = check(folder, changed('images', 0, file_name='c.jpg'))
    assert '1 image files do not exist' in findings[0].describe()


def test_findings_are_one_line(folder):
    (finding,) = check(folder, changed('images', 0, file_name='a\nb\udc80.jpg'))
    assert 'a\\nb\\udc80.jpg' in finding.describe()
    assert finding.describe().isprintable()


def noise(mode):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 4), dtype=np.uint8)
    return Image.fromarray(pixels, 'RGBA').convert(mode)


@pytest.mark.parametrize(
    ('name', 'mode'),
    [
        *(('b.png', mode) for mode in ('RGB', 'RGBA', 'L', 'LA', 'P', '1')),
        *(('a.jpg', mode) for mode in ('L', 'CMYK')),
    ],
)
def test_images_that_the_loader_converts(folder, name, mode):
    noise(mode).save(folder / 'images' / name)
    assert check(folder, GOOD) == []
    assert dataset(folder, test_mode=True)['ab'.index(name[0])]['inputs'].shape == (3, 20, 30)


def test_an_alpha_channel_is_dropped_in_the_validation(folder):
    image = noise('LA')
    results = []
    for kept in (image, image.getchannel('L')):
        kept.save(folder / 'images/b.png')
        results.append(dataset(folder, test_mode=True)[1]['inputs'])
    assert results[0].equal(results[1])


def deep(name):
    grey = np.random.default_rng(1).integers(0, 256, (40, 60), dtype=np.uint8)
    if name == 'float.tif':
        return grey.astype(np.float32) / 255
    if name == 'int32.tif':
        return grey.astype(np.int32)
    return (np.dstack([grey] * 3) if 'colour' in name else grey).astype(np.uint16) * 16


@pytest.mark.parametrize(
    'name', ['grey.png', 'colour.png', 'grey.tif', 'colour.tif', 'float.tif', 'int32.tif']
)
def test_images_that_have_not_8_bits(folder, name):
    """Pillow cuts grey values off at 255, and makes colours of 12 bits black."""
    cv2.imwrite(str(folder / 'images' / name), deep(name))
    coco = changed('images', 1, file_name=name)
    (finding,) = check(folder, coco)
    assert finding.is_error
    assert re.search(
        r'have not 8 bits.*of the type (uint16|float32|int32).*convertScaleAbs', finding.describe()
    )
    data = dataset(folder, coco)
    with pytest.raises(RuntimeError, match=rf'{name} cannot be used: .*convertScaleAbs'):
        data[1]


@pytest.mark.parametrize(('index', 'name'), [(0, 'a.jpg'), (1, 'b.png')])
def test_images_with_too_many_pixels(folder, monkeypatch, index, name):
    Image.new('RGB', (60, 41)).save(folder / 'images' / name)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 60 * 20)
    coco = {**GOOD, 'images': GOOD['images'][index : index + 1]}
    coco['annotations'] = GOOD['annotations'][index : index + 1]
    (finding,) = check(folder, coco)
    assert finding.is_error
    assert finding.problem.startswith('1 images have more than 178,956,970 pixels')
    assert finding.places == (f'{folder}/images/{name}',)
    with pytest.raises(RuntimeError, match=rf'{name} cannot be used: .* cut it into tiles'):
        dataset(folder, coco)[0]


@pytest.mark.parametrize('name', ['b.tif', 'b.bmp', 'b.webp'])
def test_other_formats_with_8_bits(folder, name):
    noise('RGB').save(folder / 'images' / name)
    assert check(folder, changed('images', 1, file_name=name)) == []


def test_annotations_of_the_image_before_it_was_turned(folder):
    file = folder / 'images' / 'a.jpg'
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.open(file).save(file, exif=turned)
    (finding,) = check(folder, GOOD)
    assert finding.is_error
    assert 'a.jpg: (40, 60), annotated (60, 40)' in finding.describe()
    assert 'EXIF' in finding.remedy


def test_images_that_a_camera_turned(folder):
    file = folder / 'images' / 'a.jpg'
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.open(file).rotate(90, expand=True).save(file, exif=turned)
    assert check(folder, GOOD) == []


def test_data_that_is_not_trained_on_needs_no_annotations(folder):
    coco = {key: value for key, value in GOOD.items() if key != 'annotations'}
    file = write(folder, coco)
    assert check_coco(file, folder / 'images', CLASSES, read_images=True, test_mode=True) == []
    assert len(dataset(folder, coco, test_mode=True)) == 2


def test_category_that_the_config_leaves_out(folder):
    (finding,) = check(folder, GOOD, classes=('dog',))
    assert not finding.is_error
    assert "['cat'] are not among the classes" in finding.problem


@pytest.mark.parametrize('damage', [lambda data: b'', lambda data: data[: len(data) // 2]])
@pytest.mark.parametrize('name', ['a.jpg', 'b.png'])
def test_damaged_images(folder, damage, name):
    file = folder / 'images' / name
    file.write_bytes(damage(file.read_bytes()))
    (finding,) = check(folder, GOOD)
    assert finding.is_error
    assert str(file) in finding.describe()


def test_missing_files_and_folders(tmp_path):
    (finding,) = check_coco(tmp_path / 'none.json', tmp_path, CLASSES)
    assert 'none.json does not exist' in finding.problem
    assert 'data_root' in finding.remedy
    findings = check_coco(write(tmp_path, GOOD), tmp_path / 'images', CLASSES)
    assert f'image folder {tmp_path / "images"} does not exist' in findings[0].problem


def dataset(folder, coco=GOOD, classes=CLASSES, **kwargs):
    write(folder, coco)
    pipeline = [
        dict(type='LoadImageFromFile', imdecode_backend='pillow'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(30, 20), keep_ratio=False),
        dict(type='PackDetInputs'),
    ]
    return CheckedCocoDataset(
        ann_file='coco.json',
        data_root=str(folder),
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=classes),
        pipeline=pipeline,
        **kwargs,
    )


@pytest.fixture(autouse=True)
def scope():
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')


@pytest.mark.parametrize('name', sorted(set(ERRORS) - {'wrong size'}))
def test_data_set_refuses_errors_when_it_is_built(folder, name):
    coco, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        dataset(folder, coco)


def test_data_set_names_all_errors(folder):
    coco = changed('annotations', 0, category_id=30)
    coco['annotations'][1]['image_id'] = 7
    with pytest.raises(ValueError, match=r'category 30(.|\n)*image 7'):
        dataset(folder, coco)


def test_data_set_clips_and_drops_boxes(folder):
    coco = copy.deepcopy(GOOD)
    coco['annotations'] += [
        dict(id=3, image_id=1, category_id=10, bbox=[50, 30, 30, 30], area=900, iscrowd=0),
        dict(id=4, image_id=1, category_id=10, bbox=[90, 5, 9, 9], area=81, iscrowd=0),
        dict(id=5, image_id=1, category_id=10, bbox=[5, 5, 0, 9], area=0, iscrowd=0),
        dict(id=6, image_id=1, category_id=10, bbox=[-10, -20, 25, 50], area=1250, iscrowd=0),
    ]
    # Expand only moves boxes: what reaches beyond the image would stay in the target.
    instances = dataset(folder, coco).get_data_info(0)['instances']
    assert [i['bbox'] for i in instances] == [
        [5, 5, 25, 25],
        [50, 30, 60, 40],
        [0, 0, 15, 30],
    ]


@pytest.mark.parametrize('box', [[59.99999, 10, 20, 20], [10, -20, 20, 20.5], [-9, 10, 9.9, 9]])
def test_data_set_drops_what_clipping_leaves_nothing_of(folder, box):
    # Of such a box the logarithm, and so the loss, is infinite.
    coco = copy.deepcopy(GOOD)
    coco['annotations'].append(dict(coco['annotations'][0], id=3, bbox=box, area=400))
    assert [i['bbox'] for i in dataset(folder, coco).get_data_info(0)['instances']] == [
        [5, 5, 25, 25]
    ]
    (finding,) = check(folder, coco)
    assert '1 boxes have less than one pixel inside their image' in finding.problem


def test_classes_without_a_comma(folder):
    message = r"the text 'cat', which is neither .*write metainfo=dict\(classes=\('cat',\)\)"
    with pytest.raises(ValueError, match=message):
        dataset(folder, classes=('cat'))


def test_data_set_without_any_image_left(folder):
    with pytest.raises(ValueError, match=r'no image of .* is left: all 2'):
        dataset(folder, filter_cfg=dict(filter_empty_gt=True, min_size=100))


@pytest.mark.parametrize('test_mode', [False, True])
@pytest.mark.parametrize('damage', [lambda data: b'', lambda data: data[: len(data) // 2]])
@pytest.mark.parametrize('index', [0, 1])
def test_data_set_names_a_damaged_image(folder, damage, index, test_mode):
    file = folder / 'images' / GOOD['images'][index]['file_name']
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(
        RuntimeError, match=rf'{file.name} cannot be used.*Copy the file again.*check_dataset'
    ):
        dataset(folder, test_mode=test_mode)[index]


def test_data_set_tells_a_failing_step_from_a_damaged_image(folder):
    data = dataset(folder)
    # OpenCV does not write to what the flip returns, a view.
    data.pipeline.transforms[3:3] = [RandomFlip(prob=1.0), YOLOXHSVRandomAug()]
    name = GOOD['images'][0]['file_name']
    with pytest.raises(
        RuntimeError, match=rf'(?s){name} cannot be used.*step of the pipeline fails'
    ):
        data[0]


def test_links_that_lead_nowhere_are_missing(folder):
    name = GOOD['images'][0]['file_name']
    (folder / 'images' / name).unlink()
    (folder / 'images' / name).symlink_to('nowhere.jpg')
    (finding,) = check(folder, GOOD)
    assert finding.problem == '1 image files do not exist'
    with pytest.raises(ValueError, match=f'image files do not exist .*{name}'):
        dataset(folder)
