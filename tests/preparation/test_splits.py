"""A division that a folder names is the one that is taken, however it is named."""

import pytest
from annotated_folders import draw_image, put, write_flat

from mmdet_hadaptive.preparation import PreparationError, prepare_dataset
from mmdet_hadaptive.preparation.formats import read_folder
from mmdet_hadaptive.preparation.source import SourceFolder, split_from_words

TRAIN = [f'p{i}' for i in range(7)]
VAL = [f'p{i}' for i in range(7, 10)]


def read(folder):
    return read_folder(SourceFolder(folder), None, ())[1]


def named(labeled, split):
    return sorted(image.path.stem for image in labeled.images if image.split == split)


def notes(found, words):
    return [finding for finding in found.findings if words in finding.problem]


def line(pattern):
    return lambda names: '\n'.join(pattern.format(name) for name in names)


@pytest.mark.parametrize('kind', ['voc', 'yolo', 'coco'])
@pytest.mark.parametrize(
    ('train', 'val', 'write'),
    [
        # CVAT, in its own words for subsets.
        ('ImageSets/Main/Train.txt', 'ImageSets/Main/Validation.txt', line('{}')),
        ('TRAIN.TXT', 'VAL.TXT', line('{}.png')),
        ('ImageSets/train_list.txt', 'ImageSets/val_list.txt', line('some/folder/{}.png  1')),
        ('lists/trainset.lst', 'lists/valset.lst', line('C:\\data\\{}.jpg')),
        ('train_labels.csv', 'valid_labels.csv', line('{}.png,80,60,cat,8,6,40,30')),
        ('train.txt', 'valid.txt', line('"{}"\n')),
        ('autosplit_train.txt', 'autosplit_val.txt', line('./images/{}.png')),
    ],
)
def test_lists_of_images(tmp_path, kind, train, val, write):
    write_flat(tmp_path, kind)
    put(tmp_path / train, write(TRAIN))
    put(tmp_path / val, write(VAL))
    labeled = read(tmp_path)
    assert (named(labeled, 'train'), named(labeled, 'val')) == (TRAIN, VAL)
    assert not notes(labeled, 'lines of lists')


def test_trainval_beside_test(tmp_path):
    write_flat(tmp_path, 'voc')
    put(tmp_path / 'ImageSets/Main/trainval.txt', '\r\n'.join(TRAIN))
    put(tmp_path / 'ImageSets/Main/test.txt', '\r\n'.join(VAL))
    labeled = read(tmp_path)
    assert (named(labeled, 'train'), named(labeled, 'test')) == (TRAIN, VAL)
    # As in Pascal VOC itself, where trainval holds the images of val, too.
    put(tmp_path / 'ImageSets/Main/trainval.txt', '\n'.join(TRAIN + VAL))
    (tmp_path / 'ImageSets/Main/test.txt').rename(tmp_path / 'ImageSets/Main/val.txt')
    labeled = read(tmp_path)
    assert (named(labeled, 'train'), named(labeled, 'val')) == (TRAIN, VAL)
    assert not notes(labeled, 'several splits')


@pytest.mark.parametrize('name', ['b {}', 'p{}_jpg.rf.0ab1', 'ü {}', '{}'])
def test_names_with_spaces_and_dots(tmp_path, name):
    write_flat(tmp_path, 'voc')
    for path in tmp_path.rglob('p*.*'):
        path.rename(path.with_name(name.format(path.stem[1:]) + path.suffix))
    put(tmp_path / 'train.txt', line(name)(range(7)))
    put(tmp_path / 'test.txt', line(name)(range(7, 10)))
    assert named(read(tmp_path), 'test') == sorted(name.format(i) for i in range(7, 10))


def test_darknet_names_its_lists(tmp_path):
    # As CVAT writes them, with names of lists that say nothing.
    write_flat(tmp_path, 'yolo')
    (tmp_path / 'data.yaml').unlink()
    put(tmp_path / 'obj.names', 'cat\ndog\n')
    put(tmp_path / 'obj.data', 'classes = 2\ntrain = data/a.txt\nvalid = data/b.txt\n')
    put(tmp_path / 'data/a.txt', line('data/images/{}.png')(TRAIN))
    put(tmp_path / 'data/b.txt', line('data/images/{}.png')(VAL))
    labeled = read(tmp_path)
    assert (named(labeled, 'train'), named(labeled, 'val')) == (TRAIN, VAL)
    assert labeled.classes == ['cat', 'dog']


def test_a_description_from_another_machine(tmp_path):
    write_flat(tmp_path, 'yolo')
    for kind in ('images', 'labels'):
        for split, names in (('train', TRAIN), ('holdout', VAL)):
            (tmp_path / split / kind).mkdir(parents=True)
            for name in names:
                [path] = (tmp_path / kind).glob(f'{name}.*')
                path.rename(tmp_path / split / kind / path.name)
    text = 'train: /content/set/train/images\nval: {}\nnames: [cat, dog]\n'
    put(tmp_path / 'data.yaml', text.format('../holdout/images'))
    # The last part of a path alone may be anything.
    assert notes(read(tmp_path), 'that the description names are not there')
    put(tmp_path / 'data.yaml', text.format('holdout/images'))
    assert named(read(tmp_path), 'val') == VAL


def test_a_list_that_fits_no_image_is_no_missing_division(tmp_path):
    write_flat(tmp_path / 'set', 'voc')
    put(tmp_path / 'set/ImageSets/Main/val.txt', '\nimg_7.png\nimg_8.png\n')
    message = r'no line of a list .* the first is .*/val.txt:2: img_7.png: correct or remove'
    with pytest.raises(PreparationError, match=message):
        prepare_dataset(tmp_path / 'set', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    # In part it is used, and the lines that fit none are named.
    put(tmp_path / 'set/ImageSets/Main/val.txt', 'p7\nimg_8.png\n')
    labeled = read(tmp_path / 'set')
    assert named(labeled, 'val') == ['p7']
    [finding] = notes(labeled, 'lines of lists')
    assert finding.places[0].endswith('/val.txt:2: img_8.png')


def test_files_that_are_no_lists(tmp_path):
    write_flat(tmp_path, 'voc')
    put(tmp_path / 'ImageSets/Main/train.txt', '\n'.join(TRAIN))
    put(tmp_path / 'ImageSets/Main/val.txt', '\n'.join(VAL))
    # Lists for one class, and for another task.
    put(tmp_path / 'ImageSets/Main/cat_train.txt', line('{}  1')(VAL))
    put(tmp_path / 'ImageSets/Segmentation/train.txt', '\n'.join(VAL))
    assert named(read(tmp_path), 'val') == VAL
    # The annotation of an image that is called as a split.
    write_flat(tmp_path / 'yolo', 'yolo')
    draw_image(tmp_path / 'yolo/images/test.png', 80, 60, 20)
    put(tmp_path / 'yolo/labels/test.txt', '0 .5 .5 .5 .5')
    [image] = [image for image in read(tmp_path / 'yolo').images if image.path.stem == 'test']
    assert (image.split, len(image.boxes)) == (None, 1)


def test_images_in_several_splits(tmp_path):
    write_flat(tmp_path, 'voc')
    put(tmp_path / 'train.txt', '\n'.join([*TRAIN, 'p7']))
    put(tmp_path / 'val.txt', '\n'.join(VAL))
    labeled = read(tmp_path)
    assert (named(labeled, 'train'), named(labeled, 'val')) == (TRAIN, VAL)
    [finding] = notes(labeled, 'several splits')
    assert finding.places == (f'{tmp_path}/JPEGImages/p7.png: train and val',)


def test_the_same_images_in_both_splits_are_no_division(tmp_path):
    write_flat(tmp_path / 'set', 'yolo')
    put(tmp_path / 'set/data.yaml', 'train: images\nval: images\nnames: [cat, dog]\n')
    result = prepare_dataset(tmp_path / 'set', tmp_path / 'out')
    assert result.counts == dict(train=(8, 8), val=(2, 2))
    assert notes(result, 'val names the same images as train')
    assert notes(result, '2 were drawn')


def test_training_images_alone_are_named(tmp_path):
    write_flat(tmp_path / 'set', 'voc')
    put(tmp_path / 'set/train.txt', '\n'.join(TRAIN))
    result = prepare_dataset(tmp_path / 'set', tmp_path / 'out')
    assert result.counts == dict(train=(7, 7), val=(3, 3))
    [finding] = notes(result, 'images are in no split')
    assert finding.remedy == 'They are validated on'


@pytest.mark.parametrize(
    ('name', 'split'),
    [
        *((name, 'train') for name in ('train2017', 'Training', 'trainval', 'obj_Train_data')),
        *((name, 'val') for name in ('VALID', 'Validation', 'images_val', 'valset', 'val.v2')),
        *((name, 'test') for name in ('test', 'Testing-Images', 'test_set')),
        *((name, None) for name in ('trainee', 'contest', 'cat_train', 'images', 'valve', '')),
    ],
)
def test_names_of_splits(name, split):
    assert split_from_words([name]) == split
