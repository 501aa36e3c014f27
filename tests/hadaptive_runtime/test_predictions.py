"""What is written beside pictures, and what sources are found."""

import csv
import errno
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from hadaptive_runtime import ExportError, drawing
from hadaptive_runtime.drawing import draw, drawable_names
from hadaptive_runtime.sources import find_sources, hide_password


def write_images(folder, *names):
    for number, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        # Some suffixes are known by the content alone.
        content = cv2.imencode('.png', np.full((60 + number, 80, 3), 128, np.uint8))[1]
        file.write_bytes(content.tobytes())
    return folder


def files_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*.*'))


def test_a_coco_file(tmp_path, main):
    write_images(tmp_path / 'images', 'b.png', 'day/a.png')
    main('images', '--recursive', '--save', 'coco', 'coco-results', '--out', 'labels')
    assert files_of(tmp_path / 'labels') == ['coco.json', 'coco_results.json']
    coco = json.loads((tmp_path / 'labels/coco.json').read_text())
    assert coco['categories'] == [dict(id=1, name='cat'), dict(id=2, name='dog')]
    assert coco['images'] == [
        dict(id=1, file_name='b.png', width=80, height=60),
        dict(id=2, file_name='day/a.png', width=80, height=61),
    ]
    assert [item['id'] for item in coco['annotations']] == [1, 2, 3, 4]
    assert [item['image_id'] for item in coco['annotations']] == [1, 1, 2, 2]
    first, second = coco['annotations'][:2]
    assert first == dict(
        id=1,
        image_id=1,
        category_id=1,
        bbox=[0, 0, 80, 60],
        area=4800,
        iscrowd=0,
        segmentation=[],
        score=0.9,
    )
    assert (second['category_id'], second['score']) == (2, 0.8)
    assert second['bbox'] == pytest.approx([6.25, 12.5, 18.75, 25], abs=0.01)
    results = json.loads((tmp_path / 'labels/coco_results.json').read_text())
    keys = ('image_id', 'category_id', 'bbox', 'score')
    assert results == [{key: item[key] for key in keys} for item in coco['annotations']]


def test_pycocotools_reads_both(tmp_path, main):
    coco = pytest.importorskip('pycocotools.coco')
    write_images(tmp_path / 'images', 'a.png')
    main('images', '--save', 'coco', 'coco-results')
    whole = coco.COCO('outputs/coco.json')
    assert len(whole.loadRes('outputs/coco_results.json').anns) == len(whole.anns) == 2


def test_yolo_files_and_a_table(tmp_path, main):
    write_images(tmp_path / 'images', 'b.png', 'a.jpg')
    main('images', '--save', 'yolo', 'csv', 'pictures', '--threshold', '0.85')
    labels = ['labels/a.txt', 'labels/b.txt']
    expected = ['a.jpg', 'b.png', 'classes.txt', 'data.yaml', 'detections.csv', *labels]
    assert files_of(tmp_path / 'outputs') == expected
    assert (tmp_path / 'outputs/labels/b.txt').read_text() == (
        '0 0.500000 0.500000 1.000000 1.000000\n'
    )
    assert (tmp_path / 'outputs/classes.txt').read_text() == 'cat\ndog\n'
    assert (tmp_path / 'outputs/data.yaml').read_text() == 'names: ["cat", "dog"]\n'
    with (tmp_path / 'outputs/detections.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['file'] for row in rows] == ['a.jpg', 'b.png']
    box = dict(x1='0.00', y1='0.00', x2='80.00', y2='60.00')
    expected = dict(file='b.png', frame='', seconds='', score='0.9000', **box)
    assert rows[1] == {'class': 'cat', **expected}


def test_names_of_any_letters(tmp_path, main, make_detector):
    main.detector = make_detector(classes=['Schraube, "groß"', '螺栓'])
    odd = os.fsdecode('bücher'.encode() + b'caf\xe9.png')
    write_images(tmp_path / 'images', odd)
    main('images', '--save', 'coco', 'yolo', 'csv', 'coco-results')
    coco = json.loads((tmp_path / 'outputs/coco.json').read_text())
    assert coco['images'][0]['file_name'] == odd
    assert coco['categories'][1]['name'] == '螺栓'
    rows = (tmp_path / 'outputs/detections.csv').read_bytes().decode(errors='surrogateescape')
    assert '"Schraube, ""groß"""' in rows
    assert odd in rows


def test_nothing_found_is_written_as_well(tmp_path, main):
    write_images(tmp_path / 'images', 'a.png')
    main('images', '--save', 'coco', 'yolo', 'csv', '--threshold', '1')
    coco = json.loads((tmp_path / 'outputs/coco.json').read_text())
    assert (len(coco['images']), coco['annotations']) == (1, [])
    assert (tmp_path / 'outputs/labels/a.txt').read_text() == ''


def test_what_cannot_be_saved_is_refused_before(tmp_path, main):
    write_images(tmp_path / 'images', 'a.png', 'a.jpg', 'video.mp4')
    with pytest.raises(SystemExit, match=r'coco cannot hold frames of videos: save pictures or'):
        main('images', '--save', 'coco', 'csv')
    (tmp_path / 'images/video.mp4').unlink()
    with pytest.raises(SystemExit, match=r'a\.jpg and a\.png would have the same YOLO file'):
        main('images', '--save', 'yolo')
    write_images(tmp_path / 'others', 'a.png')
    with pytest.raises(SystemExit, match=r'images/a\.png and others/a\.png would both be written'):
        main('images', 'others')
    assert not (tmp_path / 'outputs').exists()


def test_some_images_are_refused_and_all_others_written(tmp_path, main, capsys):
    write_images(tmp_path / 'images', 'a.png', 'b.png')
    for name in ('c.png', 'd.png'):
        cv2.imwrite(str(tmp_path / 'images' / name), np.zeros((9, 9), np.uint16))
    (tmp_path / 'images/e.png').touch()
    with pytest.raises(SystemExit) as error:
        main('images', '--save', 'pictures', 'coco')
    message = str(error.value)
    assert message.startswith(
        'error: 3 of 5 images have failed: 2 (c.png, d.png): values of the type uint16, '
    )
    assert message.endswith('; 1 (e.png): empty: replace it')
    assert files_of(tmp_path / 'outputs') == ['a.png', 'b.png', 'coco.json']
    assert len(json.loads((tmp_path / 'outputs/coco.json').read_text())['images']) == 2


def test_long_names(tmp_path, main):
    # With what is appended to an unfinished one, this name is too long.
    write_images(tmp_path / 'images', 'n' * 251 + '.png', 'ä' * 120 + '.jpg')
    main('images')
    assert len(list((tmp_path / 'outputs').iterdir())) == 2
    write_images(tmp_path / 'images', 'n' * 251 + '.jpe')
    with pytest.raises(SystemExit, match=r'\.jpe\.jpg has a name of more than 255 bytes: rename'):
        main('images')


def test_why_a_picture_cannot_be_written_is_said(tmp_path, main, monkeypatch):
    def fail(path, *_, **__):
        raise OSError(errno.EROFS, 'Read-only file system')

    write_images(tmp_path, 'a.png')
    monkeypatch.setattr(Path, 'write_bytes', fail)
    monkeypatch.setattr(Path, 'unlink', fail)
    with pytest.raises(SystemExit, match=r'1 \(a\.png\): cannot be written \(Read-only'):
        main('a.png')


def test_a_picture_that_cannot_be_written_leaves_the_others(tmp_path, main):
    write_images(tmp_path / 'images', 'a.png', 'b.png', 'c.png')
    (tmp_path / 'outputs/b.png').mkdir(parents=True)
    with pytest.raises(
        SystemExit, match=r'^error: 1 of 3 images have failed: 1 \(b\.png\): cannot'
    ):
        main('images', '--save', 'pictures', 'coco')
    assert {file.name for file in Path('outputs').iterdir()} == {
        *('a.png', 'b.png', 'c.png', 'coco.json'),
    }
    assert len(json.loads(Path('outputs/coco.json').read_text())['images']) == 3


def test_names_that_are_not_in_utf_8(tmp_path, main):
    folder = tmp_path / 'images'
    write_images(folder, 'a.png', 'b.webp')
    (folder / 'b.webp').rename(os.fsdecode(os.fsencode(folder) + b'/Gr\xfcn.webp'))
    Path(os.fsdecode(os.fsencode(folder) + b'/R\xfccken.txt')).write_text('text')
    main('images', '--save', 'coco')
    assert len(json.loads(Path('outputs/coco.json').read_text())['images']) == 2


def test_files_with_several_images_are_named(tmp_path, main, capsys):
    pages = [Image.new('RGB', (20, 20), colour) for colour in ('red', 'blue')]
    pages[0].save(tmp_path / 'pages.tif', save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / 'page.tif')
    main('pages.tif', 'page.tif')
    note = 'note: of files with several images the first is predicted, 1 (pages.tif)\n'
    assert capsys.readouterr().err == note


def test_a_folder_is_predicted_or_its_rest_is_named(tmp_path, main, capsys):
    names = ['top.png', 'a.JPE', 'b.jfif', 'frame_1', '1/c.png', '2/3/d.png']
    write_images(tmp_path / 'images', *names)
    write_images(tmp_path / 'images', '.hidden.png', '.cache/e.png', '__MACOSX/f.png', '._top.png')
    (tmp_path / 'images/notes.txt').write_text('text')
    (tmp_path / 'images/2/circle').symlink_to(tmp_path / 'images')
    main('images')
    written, said = capsys.readouterr()
    assert written.startswith('images: 4, ')
    assert said == (
        'note: images: files that are neither images nor videos are left out, 1 (notes.txt)\n'
        'note: images: the folders in it are left out, 2 (1, 2); --recursive predicts them, too\n'
    )
    expected = ['a.JPE.jpg', 'b.jfif.jpg', 'frame_1.jpg', 'top.png']
    assert files_of(tmp_path / 'outputs') == expected
    # Results in the folder are not predicted in their turn.
    for _ in range(2):
        main('images', '--recursive', '--out', 'images/out')
        assert capsys.readouterr().out.startswith('images: 6, ')
    assert files_of(tmp_path / 'images/out') == sorted([*expected, '1/c.png', '2/3/d.png'])


def test_lists_and_patterns(tmp_path, main, capsys):
    write_images(tmp_path / 'images', *(f'{number}.png' for number in range(12)))
    main('images/1*.png')
    assert capsys.readouterr().out.startswith('images: 3, ')
    (tmp_path / 'list.txt').write_text('images/1.png\nimages/2.png\n')
    main('@list.txt', 'images/3.png')
    assert capsys.readouterr().out.startswith('images: 3, ')
    # As some editors write it.
    (tmp_path / 'list.txt').write_bytes(b'\xef\xbb\xbfimages/1.png \r\n\r\n\timages/2.png\r\n \r\n')
    main('@list.txt')
    assert capsys.readouterr().out.startswith('images: 2, ')
    with pytest.raises(SystemExit, match=r'^error: a source is empty: name an image'):
        main('images/1.png', '')
    with pytest.raises(SystemExit, match=r'list\.txt is neither an image nor a video.*@list\.txt$'):
        main('list.txt')
    with pytest.raises(SystemExit, match=r'images/7\?\.png: no such image'):
        main('images/7?.png')


@pytest.mark.parametrize(
    ('source', 'key', 'name'),
    [
        ('0', 0, 'camera-0.mp4'),
        ('/dev/video0', '/dev/video0', 'video0.mp4'),
        ('rtsp://u:secret@10.0.0.1:554/live/1', None, '10.0.0.1-554-live-1.mp4'),
        ('rtsp://u:p@secret@10.0.0.1/live', None, '10.0.0.1-live.mp4'),
        ('http://host/video.mjpg', None, 'host-video.mjpg.mp4'),
        ('rtsp://user@domain:sec/ret@10.0.0.1:554/live@2x', None, '2x.mp4'),
        ('rtsp://[fe80::1]:554/live@2x', None, 'fe80-1-554-live-2x.mp4'),
        ('udp://@:1234', None, '1234.mp4'),
        ('rtsp://h/user=a&password=secret&channel=1/', None, 'h-user-a-password-channel-1.mp4'),
        ('rtsp://h/user=a_password=se_cret_channel=1', None, 'h-user-a_password-_channel-1.mp4'),
    ],
)
def test_cameras_and_streams(tmp_path, source, key, name):
    found = find_sources([source], tmp_path)
    assert found.videos == {source if key is None else key: name}
    assert not found.images


def test_a_threshold_below_that_of_the_file_is_noted(main, make_detector, capsys):
    write_images(Path('images'), 'a.png')
    main.detector = make_detector(score_threshold=0.25)
    main('images', '--threshold', 0.25)
    assert capsys.readouterr().err == ''
    main('images', '--threshold', 0.1)
    note = 'note: --threshold is 0.1, but the file only gives objects with scores above 0.25: exp'
    assert capsys.readouterr().err.startswith(note)


@pytest.mark.parametrize('save', ['pictures', 'csv'])
def test_a_folder_that_cannot_be_written_is_found_before_the_detector_is_loaded(
    main, monkeypatch, save
):
    def fail(dir):
        raise PermissionError(13, 'Permission denied')

    write_images(Path('images'), 'a.png')
    main.detector = None
    Path('file').touch()
    with pytest.raises(SystemExit, match=r'file cannot be written to \(Not a directory\)'):
        main('images', '--out', 'file/sub', '--save', save)
    monkeypatch.setattr('hadaptive_runtime.files.TemporaryFile', fail)
    reason = r'^error: .* cannot be written to \(Permission denied\): make it a writable folder, or'
    with pytest.raises(SystemExit, match=reason):
        main('images', '--save', save)


def test_a_query_is_not_shown():
    address = 'http://u:p@secret@host/v?channel=2&token=secret'
    assert hide_password(address) == 'http://host/v?...'


def test_streams_have_names_of_their_own(tmp_path):
    cameras = [f'rtsp://u:secret@nvr/cam?channel={n}&password=secret' for n in (1, 2)]
    cameras += [f'http://host/{"x" * 300}/{n}' for n in (1, 2)]
    names = find_sources(cameras, tmp_path).videos.values()
    assert len(set(names)) == 4
    assert all(re.fullmatch(r'(nvr-cam|host-x+)-[0-9a-f]{6}\.mp4', name) for name in names)
    assert max(map(len, names)) < 200


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ExportError, match=r'nowhere\.jpg: no such image, folder, video'):
        find_sources(['nowhere.jpg'], tmp_path)
    (tmp_path / 'link.jpg').symlink_to('nowhere')
    with pytest.raises(ExportError, match=r'link\.jpg leads to a file that does not exist: corr'):
        find_sources([str(tmp_path / '*.jpg')], tmp_path)
    write_images(tmp_path / 'images', 'sub/a.png')
    with pytest.raises(ExportError, match=r'and no video, but folders, 1 \(sub\): add --recursive'):
        find_sources([str(tmp_path / 'images')], tmp_path)


def test_names_that_opencv_4_cannot_draw(tmp_path, main, make_detector, monkeypatch, capsys):
    classes = ['café', '螺栓', 'plain', 'Größe']
    monkeypatch.setattr(drawing, 'cv2', SimpleNamespace(FontFace=None))
    assert drawable_names(classes) == classes
    monkeypatch.setattr(drawing, 'cv2', SimpleNamespace())
    names = drawable_names(classes)
    assert names == ['cafe', 'class 1', 'plain', 'class 3']
    monkeypatch.undo()
    main.detector = make_detector(classes=classes)
    write_images(tmp_path / 'images', 'a.png')
    for module in ('predict', '__main__'):
        monkeypatch.setattr(f'hadaptive_runtime.{module}.drawable_names', lambda classes: names)
    monkeypatch.setattr('hadaptive_runtime.__main__.load_exported', lambda file: main.detector)
    monkeypatch.chdir(tmp_path)
    main('images')
    note = 'so these classes have other names in pictures, 3 (café as cafe, 螺栓 as class 1, Größe'
    assert note in capsys.readouterr().err
    image = np.zeros((60, 80, 3), np.uint8)
    drawn = draw(image, main.detector(image), names)
    assert drawn.any()
    assert not image.any()
