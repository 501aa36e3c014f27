"""Splits FOD-A so that test images are not the neighbours of training images.

FOD-A's images are frames of videos, and its own split draws them at random. This one holds out the
last fifth of each class's file numbers, and leaves out the 50 numbers before that. Of the rest it
takes each fifth frame.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

_TEST_SHARE = 0.2
# In file numbers, which are frames of a video.
_GAP = 50
_STRIDE = 5


def main() -> None:
    """Writes OUT/train and OUT/test with links to images and annotations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path, help='a clone of thenorthwes/fodadataset')
    parser.add_argument('out', type=Path, help='a new folder')
    args = parser.parse_args()
    numbers = defaultdict(list)
    for file in sorted((args.folder / 'Annotations').glob('*.xml')):
        names = {item.text for item in ElementTree.parse(file).iterfind('object/name')}
        numbers[' and '.join(sorted(names))].append(int(file.stem))
    for split, chosen in zip(('train', 'test'), split_blocks(numbers), strict=True):
        links = args.out / split
        links.mkdir(parents=True)
        for number in chosen:
            for file in (f'JPEGImages/{number:06d}.jpg', f'Annotations/{number:06d}.xml'):
                target = args.folder.resolve() / file
                (links / target.name).symlink_to(target)
        print(f'{split}: {len(chosen)} images')


def split_blocks(numbers: Mapping[str, Sequence[int]]) -> tuple[list[int], list[int]]:
    """Holds out the end of each class.

    Args:
        numbers: For each class the numbers of its images, ascending.

    Returns:
        The numbers of the images to train on, and of those to test with, ascending.
    """
    train, test = [], []
    for of_class in numbers.values():
        first = of_class[round(len(of_class) * (1 - _TEST_SHARE))]
        train += [number for number in of_class if number < first - _GAP][::_STRIDE]
        test += [number for number in of_class if number >= first][::_STRIDE]
    return sorted(train), sorted(test)


if __name__ == '__main__':
    main()
