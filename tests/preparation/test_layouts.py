"""Ways to lay out a folder that could be misread."""

import json
import shutil
from pathlib import Path

import pytest
from annotated_folders import IMAGES, draw_image, read_back, write_coco, write_voc, write_yolo

from mmdet_hadaptive.preparation import PreparationError, prepare_dataset


def notes(result, words):
    return [finding for finding in result.findings if words in finding.problem]


def name_image(path, name):
    path.write_text(path.read_text().replace('elsewhere.jpg', name))


def test_masks_are_not_taken_for_photos(tmp_path):
    # As in Oxford-IIIT Pet, where the mask is nearer, and in Pascal VOC, where none is.
    write_voc(tmp_path / 'pets')
    for split, masks in (('train', 'annotations/trimaps'), ('valid', 'SegmentationClass')):
        folder = tmp_path / 'pets' / split
        (folder / 'images').mkdir()
        (folder / 'annotations/xmls').mkdir(parents=True)
        for path in folder.glob('*.xml'):
            image = path.with_suffix('.png')
            name_image(path, f'{path.stem}.jpg')
            draw_image(folder / masks / image.name, 80, 60, 9)
            image.rename(folder / f'images/{path.stem}.jpg')
            path.rename(folder / 'annotations/xmls' / path.name)
    result = prepare_dataset(tmp_path / 'pets', tmp_path / 'out')
    assert result.counts == dict(train=(3, 3), val=(1, 1))
    for split in ('train', 'val'):
        coco = json.loads((tmp_path / f'out/annotations/instances_{split}.json').read_text())
        assert all('/images/' in image['file_name'] for image in coco['images'])


def test_an_image_that_could_be_another_is_named(tmp_path):
    write_voc(tmp_path / 'pets')
    shutil.copy(tmp_path / 'pets/train/a.png', tmp_path / 'pets/train/a.bmp')
    result = prepare_dataset(tmp_path / 'pets', tmp_path / 'out')
    [finding] = notes(result, 'have no image, or several of that name')
    assert finding.places == (f'{tmp_path}/pets/train/a.xml',)


@pytest.mark.parametrize('write', [write_voc, write_coco])
def test_an_image_of_another_split_does_not_stand_for_one_that_is_not_there(tmp_path, write):
    write(tmp_path / 'pets')
    (tmp_path / 'pets/train/b.png').rename(tmp_path / 'pets/valid/b.png')
    result = prepare_dataset(tmp_path / 'pets', tmp_path / 'out')
    assert len(notes(result, 'or several of that name')) == 1
    assert read_back(tmp_path / 'out', 'train').keys() == {'a', 'c'}
    assert read_back(tmp_path / 'out', 'val').keys() == {'d'}


@pytest.mark.parametrize('name', ['all', 'instances_val'])
def test_one_file_for_images_in_all_folders(tmp_path, name):
    # Also where its name says that all of them are of one split.
    write_coco(tmp_path / 'pets')
    first, second = (
        json.loads((tmp_path / f'pets/{split}/_annotations.coco.json').read_text())
        for split in ('train', 'valid')
    )
    for path in tmp_path.rglob('*.json'):
        path.unlink()
    (tmp_path / 'pets/valid/d.png').rename(tmp_path / 'pets/train/d.png')
    for coco, file in ((first, 'instances_train'), (second, 'instances_val')):
        (tmp_path / f'pets/{file}.json').write_text(json.dumps(coco))
    if name == 'all':
        (tmp_path / 'pets/instances_val.json').unlink()
        (tmp_path / 'pets/instances_train.json').rename(tmp_path / 'pets/all.json')
        (tmp_path / 'pets/train/a.png').rename(tmp_path / 'pets/a.png')
    result = prepare_dataset(tmp_path / 'pets', tmp_path / 'out', val_fraction=0.4)
    assert sum(number for number, _ in result.counts.values()) == (3 if name == 'all' else 4)
    if name != 'all':
        assert read_back(tmp_path / 'out', 'val').keys() == {'d'}


def test_a_mask_does_not_stand_for_a_photo_that_is_not_there(tmp_path):
    write_coco(tmp_path / 'pets')
    (tmp_path / 'pets/train/b.png').rename(tmp_path / 'pets/train/b.bmp')
    result = prepare_dataset(tmp_path / 'pets', tmp_path / 'out')
    assert len(notes(result, 'or several of that name')) == 1
    assert read_back(tmp_path / 'out', 'train').keys() == {'a', 'c'}


def test_linked_folders_are_entered(tmp_path):
    folder = tmp_path / 'pets'
    write_yolo(folder)
    (folder / 'valid').rename(tmp_path / 'elsewhere')
    (folder / 'valid').symlink_to(tmp_path / 'elsewhere')
    # Neither images twice nor a walk without end, nor what lies around the folder.
    (folder / 'again').symlink_to(folder / 'train')
    (folder / 'loop').symlink_to(folder)
    (folder / 'around').symlink_to(tmp_path)
    draw_image(tmp_path / 'outside.png', 80, 60, 9)
    result = prepare_dataset(folder, tmp_path / 'out')
    assert result.counts == dict(train=(3, 3), val=(1, 1))


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-8'])
def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path, encoding):
    folder = tmp_path / 'pets'
    write_yolo(folder)
    (folder / 'data.yaml').unlink()
    (folder / 'classes.txt').write_text('cat\ndog\n', encoding=encoding)
    for label in folder.rglob('labels/*.txt'):
        label.write_text(label.read_text(), encoding=encoding)
    result = prepare_dataset(folder, tmp_path / 'out')
    assert result.classes == ('cat', 'dog')
    assert result.counts == dict(train=(3, 3), val=(1, 1))


def test_other_names_for_yolos_numbers_are_named(tmp_path):
    write_yolo(tmp_path / 'pets')
    result = prepare_dataset(tmp_path / 'pets', tmp_path / 'out', classes=['dog', 'cat'])
    assert result.classes == ('dog', 'cat')
    [finding] = notes(result, 'have other names in the folder')
    assert finding.places == ('0: cat is now dog', '1: dog is now cat')
    same = prepare_dataset(tmp_path / 'pets', tmp_path / 'out2', classes=['cat', 'dog'])
    assert not notes(same, 'have other names in the folder')


def test_keypoints_are_no_polygon(tmp_path):
    write_yolo(tmp_path / 'pets')
    description = tmp_path / 'pets/data.yaml'
    description.write_text(description.read_text() + 'kpt_shape: [4, 3]\n')
    label = tmp_path / 'pets/train/labels/b.txt'
    label.write_text('0 .5 .5 .2 .2' + ' .4 .5 2' * 4)
    result = prepare_dataset(tmp_path / 'pets', tmp_path / 'out')
    [(_, box)] = read_back(tmp_path / 'out', 'train')['b']
    assert box == pytest.approx([24, 32, 12, 16])
    # The format is recognised by such lines, too.
    for other in (tmp_path / 'pets').rglob('labels/*.txt'):
        other.write_text(label.read_text())
    assert prepare_dataset(tmp_path / 'pets', tmp_path / 'out3').format == 'yolo'
    write_yolo(tmp_path / 'pets')
    description.write_text(description.read_text() + 'kpt_shape: [4, 3]\n')
    label.write_text('0 .5 .5 .2 .2' + ' .4 .5 2' * 4)
    # Without a word of the description they are named.
    description.write_text(description.read_text().replace('kpt_shape', 'other'))
    result = prepare_dataset(tmp_path / 'pets', tmp_path / 'out2')
    [finding] = notes(result, 'or a polygon')
    assert finding.places[0].startswith(f'{label}:1: ')
    assert 'kpt_shape' in finding.places[0]


def test_yolo_files_without_another_are_named(tmp_path):
    folder = tmp_path / 'pets'
    write_yolo(folder)
    (folder / 'train/images/a.png').unlink()
    (folder / 'train/images/a.heic').write_bytes(b'what nobody reads')
    result = prepare_dataset(folder, tmp_path / 'out')
    text = folder / 'train/labels/a.txt'
    [finding] = notes(result, 'text files have no image')
    assert finding.places == (f'{text}: a.heic cannot be read',)
    [image] = notes(result, 'images have no text file')
    assert image.places == (f'{folder}/train/images/c.png',)
    # Lines with keypoints are those of a label, too.
    description = folder / 'data.yaml'
    description.write_text(description.read_text() + 'kpt_shape: [4, 3]\n')
    text.write_text('0 .5 .5 .2 .2' + ' .4 .5 2' * 4)
    result = prepare_dataset(folder, tmp_path / 'out2')
    [finding] = notes(result, 'text files have no image')
    assert finding.places == (f'{text}: a.heic cannot be read',)


def test_images_in_no_split_are_named(tmp_path):
    write_voc(tmp_path / 'pets', IMAGES | {'more/e': IMAGES['train/a']})
    result = prepare_dataset(tmp_path / 'pets', tmp_path / 'out')
    [finding] = notes(result, 'images are in no split')
    assert finding.places == (f'{tmp_path}/pets/more/e.png',)
    assert result.counts['train'] == (4, 5)


@pytest.mark.parametrize('val', [True, False])
def test_test_images_without_boxes_are_left_out(tmp_path, val):
    images = {name.replace('valid', 'valid' if val else 'more'): i for name, i in IMAGES.items()}
    write_voc(tmp_path / 'pets', images | {'test/e': (70, 50, [])})
    result = prepare_dataset(tmp_path / 'pets', tmp_path / 'out', val_fraction=0.5)
    [finding] = notes(result, 'test images, none with a box')
    assert finding.places == (f'{tmp_path}/pets/test/e.png',)
    assert result.counts.keys() == {'train', 'val'}
    assert sum(images for images, _ in result.counts.values()) == 4


def test_numbers_as_keys_of_class_names(tmp_path):
    write_yolo(tmp_path / 'pets')
    names = ', '.join(f"'{i}': name{i}" for i in range(12))
    (tmp_path / 'pets/data.yaml').write_text(f'names: {{{names}}}')
    result = prepare_dataset(tmp_path / 'pets', tmp_path / 'out')
    assert result.classes == tuple(f'name{i}' for i in range(12))


def test_lists_beside_a_description_whose_path_is_elsewhere(tmp_path):
    folder = tmp_path / 'pets'
    write_yolo(folder, {name.replace('valid', 'all'): image for name, image in IMAGES.items()})
    (folder / 'val.txt').write_text('all/images/d.png\n')
    (folder / 'data.yaml').write_text(
        'path: ../datasets/pets\ntrain: lost\nval: val.txt\nnames: [cat, dog]\n'
    )
    result = prepare_dataset(folder, tmp_path / 'out')
    assert read_back(tmp_path / 'out', 'val').keys() == {'d'}
    [finding] = notes(result, 'that the description names are not there')
    assert finding.places == (f'{folder}/data.yaml: train: lost',)


def test_coco_with_the_same_numbers_in_each_split(tmp_path):
    folder = tmp_path / 'pets'
    write_coco(folder)
    (folder / 'annotations').mkdir()
    (folder / 'valid/d.png').rename(folder / 'valid/a.png')
    for split, name in (('train', 'train'), ('valid', 'val')):
        path = folder / split / '_annotations.coco.json'
        path.write_text(path.read_text().replace('d.png', 'a.png'))
        path.rename(folder / f'annotations/instances_{name}.json')
    result = prepare_dataset(folder, tmp_path / 'out')
    assert result.counts == dict(train=(3, 3), val=(1, 1))
    coco = json.loads((tmp_path / 'out/annotations/instances_val.json').read_text())
    assert [image['file_name'] for image in coco['images']] == ['valid/a.png']


def test_classes_without_a_box(tmp_path):
    folder = tmp_path / 'pets'
    write_coco(folder)
    for path in folder.rglob('*.json'):
        # As Roboflow writes it.
        coco = json.loads(path.read_text())
        coco['categories'].insert(0, dict(id=9, name='pets', supercategory='none'))
        path.write_text(json.dumps(coco))
    result = prepare_dataset(folder, tmp_path / 'out')
    assert result.classes == ('pets', 'cat', 'dog')
    [finding] = notes(result, 'classes have no training box')
    assert finding.places == ('pets',)
    result = prepare_dataset(folder, tmp_path / 'out2', classes=['cat', 'dog'])
    assert result.classes == ('cat', 'dog')
    assert result.counts == dict(train=(3, 3), val=(1, 1))
    assert not notes(result, 'classes have no training box')


@pytest.mark.parametrize('position', [0, 2])
def test_a_category_above_that_has_the_name_of_a_class(tmp_path, position):
    folder = tmp_path / 'pets'
    write_coco(folder)
    for path in folder.rglob('*.json'):
        coco = json.loads(path.read_text())
        for name in ('cat', 'bird', 'bird'):
            parent = dict(id=9 + len(coco['categories']), name=name, supercategory='none')
            coco['categories'].insert(position, parent)
        path.write_text(json.dumps(coco))
    result = prepare_dataset(folder, tmp_path / 'out')
    assert sorted(result.classes) == ['bird', 'cat', 'dog']
    assert result.counts == dict(train=(3, 3), val=(1, 1))


@pytest.mark.parametrize('encoding', ['GB2312', 'gbk', 'Shift_JIS'])
def test_xml_in_encodings_with_several_bytes(tmp_path, encoding):
    folder = tmp_path / 'pets'
    write_voc(folder)
    # GB2312 has no character for this; files in GBK say so nevertheless.
    name = '鎔' if encoding == 'GB2312' else '猫'
    for path in folder.rglob('*.xml'):
        text = f'<?xml version="1.0" encoding="{encoding}"?>{path.read_text()}'
        content = text.replace('cat', name).encode(encoding.replace('GB2312', 'gbk'))
        path.write_bytes(content)
    result = prepare_dataset(folder, tmp_path / 'out')
    assert result.classes == ('dog', name)
    assert result.counts == dict(train=(3, 3), val=(1, 1))


def test_annotations_beside_their_images_are_taken(tmp_path):
    folder = tmp_path / 'pets'
    write_voc(folder)
    shutil.copytree(folder / 'train', folder / 'backup', ignore=shutil.ignore_patterns('*.png'))
    result = prepare_dataset(folder, tmp_path / 'out')
    assert result.counts == dict(train=(3, 3), val=(1, 1))
    [finding] = notes(result, 'annotation files have no image, or several')
    assert finding.places == tuple(f'{folder}/backup/{name}.xml' for name in 'abc')


def test_lists_of_classes_that_agree(tmp_path):
    folder = tmp_path / 'pets'
    write_yolo(folder)
    (folder / 'other.yaml').write_text('names: {0: cat, 1: dog, 2: bird}')
    assert prepare_dataset(folder, tmp_path / 'out').classes == ('cat', 'dog', 'bird')
    # What is named decides between those that do not.
    (folder / 'other.yaml').write_text('names: [no, bird]')
    result = prepare_dataset(folder, tmp_path / 'out2', classes=['cat', 'dog'])
    assert result.classes == ('cat', 'dog')


def test_numbers_that_start_again_in_each_folder(tmp_path):
    # The names are of before a conversion to PNG, and another folder has JPEGs.
    write_voc(tmp_path / 'pets', {f'{n}/1': IMAGES['train/a'] for n in ('first', 'second')})
    for path in (tmp_path / 'pets').rglob('*.xml'):
        name_image(path, '1.jpg')
    draw_image(tmp_path / 'pets/second/1.png', 80, 60, 7)
    draw_image(tmp_path / 'pets/third/1.jpg', 80, 60, 8)
    result = prepare_dataset(tmp_path / 'pets', tmp_path / 'out', val_fraction=0.5)
    [finding] = notes(result, 'images have no annotation file')
    assert finding.places == (f'{tmp_path}/pets/third/1.jpg',)


def test_coco_names_of_images(tmp_path):
    # One says the folder of another split, as LVIS does; others have no suffix.
    folder = tmp_path / 'pets'
    write_coco(folder)
    path = folder / 'train/_annotations.coco.json'
    (folder / 'train/b.png').rename(folder / 'valid/b.png')
    text = path.read_text().replace('"b.png"', '"valid/b.png"').replace('"a.png"', '"a"')
    path.write_text(text)
    assert prepare_dataset(folder, tmp_path / 'out').counts == dict(train=(2, 2), val=(2, 2))


def lose_labels(folder):
    write_yolo(folder)
    shutil.rmtree(folder / 'valid/labels')


def draw_no_boxes(folder):
    write_voc(folder, {f'all/{i}': (80, 60, []) for i in range(20)} | {'all/a': IMAGES['train/a']})


def list_classes_twice(folder):
    write_yolo(folder)
    (folder / 'data.yaml').unlink()
    (folder / 'train/classes.txt').write_text('cat\ndog')
    (folder / 'valid/classes.txt').write_text('dog\ncat')


def number_from_one(folder):
    write_yolo(folder)
    (folder / 'data.yaml').write_text('names: {1: cat, 2: dog}')


def write_other_encoding(folder):
    write_yolo(folder)
    (folder / 'data.yaml').unlink()
    (folder / 'classes.txt').write_text('cat\nböse', encoding='cp1252')


def write_xml_in_another_encoding(folder):
    write_voc(folder)
    for path in folder.rglob('*.xml'):
        path.write_text('<?xml version="1.0" encoding="klingon"?>' + path.read_text())


def annotate_twice(folder):
    write_voc(folder, {f'all/{Path(name).name}': image for name, image in IMAGES.items()})
    for name in ('first', 'second'):
        shutil.copytree(folder / 'all', folder / name, ignore=shutil.ignore_patterns('*.png'))
    for path in (folder / 'all').glob('*.xml'):
        path.unlink()


def describe_twice(folder):
    write_yolo(folder)
    (folder / 'coco.yaml').write_text('names: [person, bicycle, car]')


def leave_quotes_away(folder):
    write_yolo(folder)
    (folder / 'data.yaml').write_text('names: [no, yes]')


def lose_images(folder):
    write_coco(folder)
    for path in folder.rglob('*.png'):
        path.rename(path.with_stem(f'renamed_{path.stem}'))


@pytest.mark.parametrize(
    ('write', 'options', 'message'),
    [
        (lose_labels, {}, r'validation images have no boxes, the first is valid/images/d'),
        (draw_no_boxes, dict(val_fraction=0.4), 'validation .* no boxes.*draw others with --seed'),
        (list_classes_twice, {}, r'valid/classes.txt and .*train/classes.txt do not list the same'),
        (number_from_one, {}, r'data.yaml gives its classes the numbers 1, 2: number classes'),
        (annotate_twice, {}, r'4 images are annotated more than once, the first is .*/all/a.png'),
        (describe_twice, {}, r'data.yaml and .*coco.yaml do not list the same classes'),
        (leave_quotes_away, {}, r'data.yaml has a class False, .*put names into quotes'),
        (write_other_encoding, {}, r'classes.txt is not in UTF-8 \(.*: save it so'),
        (
            write_xml_in_another_encoding,
            dict(annotation_format='voc'),
            r'4 files cannot be read as XML .*unknown encoding: klingon',
        ),
        (lose_images, {}, r'4 images are not there, or several of that name \(.*: a.png'),
    ],
)
def test_refused_with_the_reason(tmp_path, write, options, message):
    write(tmp_path / 'pets')
    with pytest.raises(PreparationError, match=message):
        prepare_dataset(tmp_path / 'pets', tmp_path / 'out', **options)
    assert not (tmp_path / 'out').exists()
