import sys

from research.tools import split_fod_a

_ANNOTATION = '<annotation><object><name>{}</name></object></annotation>'


def test_the_end_of_each_class_is_held_out_with_a_gap():
    train, test = split_fod_a.split_blocks({'Bolt': range(1000), 'Nut': range(1000, 1500)})
    assert train == [*range(0, 750, 5), *range(1000, 1350, 5)]
    assert test == [*range(800, 1000, 5), *range(1400, 1500, 5)]


def test_folders_hold_images_beside_annotations(tmp_path, monkeypatch):
    data, out = tmp_path / 'data', tmp_path / 'out'
    for folder in ('Annotations', 'JPEGImages'):
        (data / folder).mkdir(parents=True)
    for number in range(400):
        name = 'Bolt' if number < 300 else 'Nut'
        (data / f'Annotations/{number:06d}.xml').write_text(_ANNOTATION.format(name))
        (data / f'JPEGImages/{number:06d}.jpg').write_bytes(b'%d' % number)
    monkeypatch.setattr(sys, 'argv', ['split_fod_a', str(data), str(out)])
    split_fod_a.main()
    for split, numbers in {
        'train': [*range(0, 190, 5), *range(300, 330, 5)],
        'test': [*range(240, 300, 5), *range(380, 400, 5)],
    }.items():
        assert [int(file.read_bytes()) for file in sorted((out / split).glob('*.jpg'))] == numbers
        assert [int(file.stem) for file in sorted((out / split).glob('*.xml'))] == numbers
