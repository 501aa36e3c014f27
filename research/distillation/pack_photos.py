"""Packs the photos of public git repositories into few files: JPEG bytes, one after the other.

Nothing is checked out. ``git cat-file`` reads the photos from a bare repository. Photos with a
short side above a limit are made smaller once, so that a crop costs little later.
"""

import argparse
import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

PART_BYTES = 60 * 2**20
# Short side in pixels: what a crop of up to 160 pixels needs.
SHORT_SIDE = 176

# Repository, commit, and what the paths begin with. Caltech-101 is to measure with, not to train.
SOURCES = {
    'miniplaces': ('rathull+CTFs', 'f35c219885f163ca00a045236dd44be489598837', 'data/images/'),
    'mini-imagenet': ('Deo0330+split_minidataset', 'HEAD', ''),
    'flickr8k': (
        'RlNZLER+Image-Text-Matching',
        '4457800d7c630bdc2a9b3d3c2e35538c0924cc1f',
        'data/images/',
    ),
    'flowers': (
        'RlNZLER+Image-Text-Matching',
        '4457800d7c630bdc2a9b3d3c2e35538c0924cc1f',
        'dataset_for_transformer_classifier/flower_photos',
    ),
    'grocery': ('marcusklasson+GroceryStoreDataset', 'HEAD', 'dataset/t'),
    'imagenette': ('thunderInfy+imagenette', 'HEAD', 'train/'),
    'landscapes': (
        'zhabiki+paysage-classification',
        'a4fcaf40db1ba992a6b61d811847eaf64378dcd4',
        '',
    ),
    'tiny-imagenet': ('seshuad+IMagenet', 'HEAD', 'tiny-imagenet-200/train/'),
    'caltech101': ('taibarehm+CVassimgement', 'HEAD', 'caltech-101/'),
}
# The most photos that are taken.
MOST = {'landscapes': 8000}


def main() -> None:
    """Writes OUT/SOURCE-000.bin, -001.bin, ... and OUT/SOURCE.json for each source."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('mirrors', type=Path, help='folder with NAME/repo, bare git repositories')
    parser.add_argument('out', type=Path)
    parser.add_argument('--sources', nargs='+', default=list(SOURCES), choices=list(SOURCES))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for source in args.sources:
        index = args.out / f'{source}.json'
        if index.exists():
            print(f'{source}: {index} is there')
            continue
        repository, commit, folder = SOURCES[source]
        repo = args.mirrors / repository / 'repo'
        count = pack(photos(repo, commit, folder, MOST.get(source)), args.out, source)
        print(f'{source}: {count} photos', flush=True)


def photos(repo: Path, commit: str, folder: str, most: int | None) -> Iterator[tuple[str, bytes]]:
    """Reads path and content of the JPEG files of one folder of a commit.

    Args:
        repo: A bare repository.
        commit: The commit that is read.
        folder: What the paths begin with.
        most: Take only so many, chosen by the hash of their path.

    Yields:
        Path and bytes, each content once.
    """
    git = ['git', f'--git-dir={repo}']
    listing = subprocess.check_output([*git, 'ls-tree', '-r', '-z', commit], text=True)
    blobs: dict[str, str] = {}
    for line in listing.split('\0'):
        if not line:
            continue
        head, path = line.split('\t', 1)
        if path.startswith(folder) and path.lower().endswith(('.jpg', '.jpeg')):
            blobs.setdefault(head.split()[2], path)
    chosen = list(blobs.items())
    if most is not None:
        chosen.sort(key=lambda item: hashlib.sha256(item[1].encode()).digest())
        chosen = sorted(chosen[:most], key=lambda item: item[1])
    for start in range(0, len(chosen), 1000):
        block = chosen[start : start + 1000]
        names = ''.join(f'{blob}\n' for blob, _ in block).encode()
        answer = memoryview(subprocess.check_output([*git, 'cat-file', '--batch'], input=names))
        for _, path in block:
            head = bytes(answer[:100]).partition(b'\n')[0]
            fields = head.split()
            if fields[1:] == [b'missing']:
                # A copy of a repository may lack its largest files.
                answer = answer[len(head) + 1 :]
                continue
            begin, size = len(head) + 1, int(fields[2])
            yield path, bytes(answer[begin : begin + size])
            answer = answer[begin + size + 1 :]


def pack(items: Iterator[tuple[str, bytes]], out: Path, source: str) -> int:
    """Writes photos into parts of at most 60 MiB, and then the index.

    Args:
        items: Path and JPEG bytes of each.
        out: The folder.
        source: What the files are named by.

    Returns:
        How many photos were written; what is not a JPEG file in colour or in grey is left out.
    """
    index, part, offset = [], 0, 0
    file = (out / f'{source}-000.bin').open('wb')
    for path, data in items:
        data = shrink(data)
        if data is None:
            continue
        if offset + len(data) > PART_BYTES:
            file.close()
            part, offset = part + 1, 0
            file = (out / f'{source}-{part:03d}.bin').open('wb')
        file.write(data)
        index.append((path, part, offset, len(data)))
        offset += len(data)
    file.close()
    temporary = out / f'{source}.json.new'
    temporary.write_text(json.dumps(index))
    temporary.rename(out / f'{source}.json')
    return len(index)


def shrink(data: bytes) -> bytes | None:
    """Makes a photo as small as a crop needs it.

    Args:
        data: A JPEG file.

    Returns:
        The same bytes if the short side is small enough, else a smaller JPEG; None if it cannot be
        read.
    """
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        return None
    short = min(image.shape[:2])
    if short <= SHORT_SIDE and data[:2] == b'\xff\xd8':
        return data
    if short > SHORT_SIDE:
        size = [round(side * SHORT_SIDE / short) for side in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


if __name__ == '__main__':
    main()
