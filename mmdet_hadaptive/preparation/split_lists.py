"""Which images a folder's lists and descriptions put into which split."""

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
# What may follow the name of an image in a line: flags, classes, boxes.
_LAST_WORD = re.compile(r'\s+\S*$|[,;].*$')
_QUOTES = '"\''


class Splits:
    """The splits of images that are named in lists, or in folders that a description names.

    A list is a text file that is called after a split, such as ``Train.txt``, ``val_list.txt`` or
    ``ImageSets/Main/trainval.txt``, or whatever name a description gives. Each of its lines names
    an image, with or without folders and suffix, perhaps followed by other words.

    Args:
        source: The folder.
        places: For 'train', 'val' and 'test' the lists and folders that a description names.
        described_in: The description.
        base: The folder that the description says they are in.

    Attributes:
        findings: What was noticed.
        lost_lists: The first line of each list of which no line fits an image.
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
            # trainval has the images of val as well; those are no contradiction.
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
        """The split of an image: of the lists, or of a folder that is called after one."""
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
            # The first line of a table says what its columns are.
            if not found and not (is_first and path.suffix.lower() == '.csv'):
                missing.append(f'{path}:{number}: {text}')
            is_first = False
        if missing and not images:
            self.lost_lists.append(missing[0])
        self._missing += missing
        return images

    def _find_line(self, path: Path, text: str, split: str) -> list[Path]:
        """The images that a line names: the whole of it, or without the last words."""
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
        """The images of the lists and folders that a description names."""
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
        """Where a list or folder is, although a description may name it from elsewhere.

        Roboflow writes ``../train/images`` for ``train/images``, Darknet ``data/train.txt`` for
        ``train.txt``, and others the paths of another machine.
        """
        parts = [part for part in name.replace('\\', '/').split('/') if part not in ('', '.')]
        for start in range(len(parts)):
            rest = parts[start:]
            # A part of the path alone could be anything, unless it names the split.
            if start and split_from_words(Path(part).stem for part in rest) != split:
                continue
            for root in (described_in.parent, self._source.root):
                place = Path(os.path.normpath(root / '/'.join(rest)))
                if place.is_relative_to(os.path.normpath(self._source.root)) and place.exists():
                    return place
        return None

    def _settle(self, named: dict[str, set[Path]]) -> dict[Path, str]:
        """One split for each image; an image that is evaluated on is not trained on."""
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
    """The text files that are called after a split, and the split.

    A file beside an image of its name is the annotation of that, and so are files in ``labels``.
    Pascal VOC has lists of its own for other tasks than detection.
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
