"""Finds the splits of images in a folder's lists and descriptions."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from ..datasets.findings import Finding, note
from .annotations import PreparationError
from .source import SourceFolder, read_text, split_from_words

_LISTS = ('.txt', '.lst', '.csv')
# These may follow the name of an image in a line: flags, classes, boxes.
_LAST_WORD = re.compile(r'\s+\S*$|[,;].*$')
_QUOTES = '"\''


class Splits:
    """The splits of images, by lists, or by folders that a description names.

    A list is a text file with the name of a split, such as ``Train.txt``, ``val_list.txt`` or
    ``ImageSets/Main/trainval.txt``, or a file that a description names. Each line names an image,
    with or without folders and suffix. Other words may follow.

    Args:
        source: The folder.
        places: The lists and folders that a description names for 'train', 'val' and 'test'.
        described_in: The description.
        base: The base folder in the description.

    Attributes:
        findings: The findings.
        lost_lists: For each list without any matching image, its first line.
    """

    def __init__(
        self,
        source: SourceFolder,
        places: Mapping[str, Sequence[str]] | None = None,
        described_in: Path | None = None,
        base: str = '',
    ) -> None:
        self.findings: list[Finding] = []
        self.lost_lists: list[str] = []
        self._source = source
        self._read: set[Path] = set()
        self._missing: list[str] = []
        self._nowhere: list[str] = []
        described = self._read_places(places or {}, described_in, base)
        listed: dict[str, set[Path]] = defaultdict(set)
        rest: set[Path] = set()
        for path, split in find_lists(source):
            if path.resolve() in self._read:
                continue
            images = self._read_list(path, split)
            # trainval contains the images of val. This is no contradiction.
            (rest if 'trainval' in path.stem.lower() else listed[split]).update(images)
        self._splits = dict.fromkeys(rest, 'train') | self._settle(listed) | self._settle(described)
        self.findings += [
            *note(
                'lines of lists of images name one that is not there, or several',
                'They are left out',
                self._missing,
            ),
            *note(
                'folders or lists of images that the description names are not there',
                'Lists and folders that are called after a split say what is which',
                self._nowhere,
            ),
        ]

    def find(self, image: Path) -> str | None:
        """Returns the split of an image, by the lists, or by a folder with the name of a split."""
        return self._splits.get(image) or self._source.split_of(image)

    def _read_list(self, path: Path, split: str) -> set[Path]:
        self._read.add(path.resolve())
        try:
            lines = read_text(path).splitlines()
        except PreparationError as error:
            self.lost_lists.append(str(error))
            return set()
        images: set[Path] = set()
        missing = []
        is_first = True
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text or text.startswith('#'):
                continue
            found = self._find_line(path, text, split)
            images.update(found)
            # The first line of a table has the names of its columns.
            if not found and not (is_first and path.suffix.lower() == '.csv'):
                missing.append(f'{path}:{number}: {text}')
            is_first = False
        if missing and not images:
            self.lost_lists.append(missing[0])
        self._missing += missing
        return images

    def _find_line(self, path: Path, text: str, split: str) -> list[Path]:
        """Returns the images that a line names, with or without its last words."""
        while text:
            found = self._source.find_all(path, text.strip(_QUOTES), split)
            if found:
                return found
            shorter = _LAST_WORD.sub('', text).strip()
            text = '' if shorter == text else shorter
        return []

    def _read_places(
        self, places: Mapping[str, Sequence[str]], described_in: Path | None, base: str
    ) -> dict[str, set[Path]]:
        """Returns the images of the lists and folders that a description names."""
        named: dict[str, set[Path]] = defaultdict(set)
        folders: dict[Path, list[str]] = defaultdict(list)
        for split, names in places.items():
            for name in names:
                place = self._find_place(f'{base}/{name}', described_in, split)
                place = place or self._find_place(name, described_in, split)
                if place is None:
                    self._nowhere.append(f'{described_in}: {split}: {name}')
                elif place.is_dir():
                    folders[place.resolve()].append(split)
                else:
                    named[split] |= self._read_list(place, split)
        for image in self._source.images if folders else ():
            inner = next((place for place in image.resolve().parents if place in folders), None)
            for split in folders.get(inner, ()):
                named[split].add(image)
        return named

    def _find_place(self, name: str, described_in: Path, split: str) -> Path | None:
        """Finds a list or folder, even if the description's path starts elsewhere.

        Roboflow writes ``../train/images`` for ``train/images``. Darknet writes ``data/train.txt``
        for ``train.txt``. Others write the paths of another machine.
        """
        parts = [part for part in name.replace('\\', '/').split('/') if part not in ('', '.')]
        for start in range(len(parts)):
            rest = parts[start:]
            # A part of the path is only used if it names the split.
            if start and split_from_words(Path(part).stem for part in rest) != split:
                continue
            for root in (described_in.parent, self._source.root):
                place = Path(os.path.normpath(root / '/'.join(rest)))
                if place.is_relative_to(os.path.normpath(self._source.root)) and place.exists():
                    return place
        return None

    def _settle(self, named: dict[str, set[Path]]) -> dict[Path, str]:
        """Chooses a split for each image. Validation and test images are not trained on."""
        for one, other in combinations(('train', 'val', 'test'), 2):
            images = named.get(other)
            if images and images == named.get(one):
                self.findings += note(
                    f'{other} names the same images as {one}', f'They are in {one} only'
                )
                named[other] = set()
        splits: dict[Path, str] = {}
        repeated = []
        for split in ('train', 'test', 'val'):
            for image in sorted(named.get(split, ())):
                if image in splits:
                    repeated.append(f'{image}: {splits[image]} and {split}')
                splits[image] = split
        self.findings += note(
            'images are named in several splits',
            'They are not trained on, and validated on rather than tested',
            repeated,
        )
        return splits


def find_lists(source: SourceFolder) -> Iterator[tuple[Path, str]]:
    """Yields the text files with the name of a split, and the split.

    A file beside an image of its name is that image's annotation. Files in ``labels`` are
    annotations, too. Pascal VOC has other lists for other tasks than detection.
    """
    lists = [
        (path, split)
        for path in source.with_suffix(*_LISTS)
        if (split := split_from_words([path.stem]))
        and 'labels' not in path.parts
        and not any(image.parent == path.parent for image in source.find_all(path))
    ]
    has_main = any('ImageSets' in path.parts and 'Main' in path.parts for path, _ in lists)
    for path, split in lists:
        if not (has_main and 'ImageSets' in path.parts and 'Main' not in path.parts):
            yield path, split
