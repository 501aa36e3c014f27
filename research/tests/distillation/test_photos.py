"""Packing photos of a git repository, and cutting crops of them."""

import subprocess

import cv2
import numpy as np
import pytest

from research.distillation.pack_photos import SHORT_SIDE, pack, photos
from research.distillation.photos import PackedPhotos, RandomCrops, random_crop


@pytest.fixture
def repository(tmp_path):
    """Three photos of one colour each, one twice, and another file."""
    folder = tmp_path / 'repo'
    (folder / 'data').mkdir(parents=True)
    for name, colour, size in [
        ('a.jpg', (250, 0, 0), (40, 60)),
        ('b.JPG', (0, 250, 0), (400, 500)),
        ('copy.jpg', (250, 0, 0), (40, 60)),
    ]:
        cv2.imwrite(str(folder / 'data' / name), np.full((*size, 3), colour[::-1], np.uint8))
    (folder / 'data/notes.txt').write_text('no photo')
    cv2.imwrite(str(folder / 'other.jpg'), np.zeros((9, 9, 3), np.uint8))
    who = ['-c', 'user.name=a', '-c', 'user.email=a@b']
    for command in (['init', '-q'], ['add', '.'], [*who, 'commit', '-qm', 'photos']):
        subprocess.run(['git', *command], cwd=folder, check=True)
    return folder / '.git'


def test_photos_of_a_folder_are_packed_once_and_made_smaller(repository, tmp_path):
    items = photos(repository, 'HEAD', 'data/', None)
    assert pack(items, tmp_path, 'some') == 2
    packed = PackedPhotos(tmp_path, ['some'])
    assert packed.names == [('some', 'data/a.jpg'), ('some', 'data/b.JPG')]
    assert packed[0].shape == (40, 60, 3)
    assert packed[1].shape == (SHORT_SIDE, SHORT_SIDE * 5 // 4, 3)
    # RGB.
    assert packed[0].mean((0, 1)) == pytest.approx([250, 0, 0], abs=6)
    assert packed[1].mean((0, 1)) == pytest.approx([0, 250, 0], abs=6)


def test_parts_are_of_limited_size(repository, tmp_path, monkeypatch):
    items = list(photos(repository, 'HEAD', 'data/', None))
    monkeypatch.setattr('research.distillation.pack_photos.PART_BYTES', len(items[0][1]))
    pack(iter(items), tmp_path, 'some')
    assert sorted(file.name for file in tmp_path.glob('*.bin')) == ['some-000.bin', 'some-001.bin']
    assert PackedPhotos(tmp_path, ['some'])[1].shape[0] == SHORT_SIDE


def test_the_same_photos_are_chosen_again(repository):
    first, again = (list(photos(repository, 'HEAD', 'data/', 1)) for _ in range(2))
    assert len(first) == 1
    assert first == again


def test_a_crop_shows_enough_pixels():
    rng = np.random.default_rng(0)
    # Each pixel says where it lies.
    y, x = np.mgrid[:128, :128]
    image = np.stack([y, x, y], axis=2).astype(np.uint8)
    for _ in range(50):
        crop = random_crop(image, 32, rng)
        assert crop.shape == (32, 32, 3)
        height, width = (np.ptp(crop[..., channel].astype(float)) for channel in (0, 1))
        # A quarter of the area, and what the outermost of 32 pixels leave out.
        assert height * width > 0.9 * 64**2 * (31 / 32) ** 2 - 200


def test_half_of_the_crops_are_mirrored():
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    rising = [
        bool(np.diff(random_crop(image, 16, rng)[0, [0, -1], 0].astype(int))[0] > 0)
        for _ in range(60)
    ]
    assert 15 < sum(rising) < 45


def test_batches_follow_the_shares(repository, tmp_path):
    for source, path in [('some', 'data/a'), ('more', 'data/b')]:
        pack(photos(repository, 'HEAD', path, None), tmp_path, source)
    batches = iter(RandomCrops(tmp_path, {'some': 1.0, 'more': 3.0}, 16, 200, (0,)))
    crops, outputs = next(batches)
    assert crops.shape == (200, 16, 16, 3)
    assert outputs == []
    green = (crops[:, 0, 0, 1] > 128).float().mean()
    assert green == pytest.approx(0.75, abs=0.1)
