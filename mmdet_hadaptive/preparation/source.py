"""Finds the files in a folder, and the image of each annotation."""

import codecs
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import unquote

from PIL import Image, UnidentifiedImageError

from hadaptive_runtime.images import IMAGE_SUFFIXES

from .annotations import PreparationError

_JPEGS = ('.jpg', '.jpeg')
_IMAGE_FOLDER = re.compile('image|img|photo', re.IGNORECASE)
# Folders that programs create beside the user's files: macOS, Synology, Windows.
# Names that begin with a dot are hidden, too: .ipynb_checkpoints, ._photo.jpg, .git, .Trash.
_PROGRAMS_OWN = ('__MACOSX', '@eaDir', '$RECYCLE.BIN', 'System Volume Information')
# Files that cannot be images, so that they need not be opened.
_TEXTS = ('.txt', '.xml', '.json', '.yaml', '.yml', '.csv', '.names', '.data', '.labels', '.md')
# An image with another suffix must have one of these formats. TIFF is not among them, because a
# camera's raw file is a TIFF that holds a thumbnail.
_FORMATS = ('JPEG', 'PNG', 'BMP', 'WEBP')
# Words in the name of a folder or a list that say nothing about a split.
_FILLERS = re.compile(
    '(?:annotation|image|imageset|img|jpegimage|label|list|name|file|id|set|split|subset)s?'
    '|obj|data|dataset|instances|coco|voc|yolo|autosplit'
)
_SPLIT = re.compile(
    r'(?:obj|images?|imgs?)?'
    r'(?:(?P<train>train|training|trainval)|(?P<val>val|valid|validation|eval|evaluation)'
    r'|(?P<test>test|testing))'
    r'(?:sets?|data|images?|imgs?|lists?|labels?)?'
)


class SourceFolder:
    """The files in a folder and its subfolders, also in linked ones, without hidden files.

    Args:
        root: The folder. If a subfolder can be reached in several ways, it is searched once, not
            by a link if possible.

    Attributes:
        root: The folder.
        files: All files, sorted by path.
        images: The files with the suffix of an image.

    Raises:
        OSError: If a folder cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = sorted(_walk(root))
        self.images = [path for path in self.files if path.suffix.lower() in IMAGE_SUFFIXES]
        self._index = _Index(self.images)

    @cached_property
    def unusual(self) -> list[Path]:
        """Images with an unknown suffix, found by their content."""
        known = {*IMAGE_SUFFIXES, *_TEXTS}
        return [p for p in self.files if p.suffix.lower() not in known and _is_image(p)]

    @cached_property
    def _unusual_index(self) -> '_Index':
        return _Index(self.unusual)

    @cached_property
    def _others(self) -> dict[str, list[Path]]:
        """The files that are neither images nor texts, by their stem."""
        others: dict[str, list[Path]] = defaultdict(list)
        known = {*IMAGE_SUFFIXES, *_TEXTS}
        for path in self.files:
            if path.suffix.lower() not in known:
                others[path.stem].append(path)
        return others

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """Returns the files with one of these suffixes, in small letters or capitals."""
        return [path for path in self.files if path.suffix.lower() in suffixes]

    def find_beside(self, annotation: Path) -> Path | None:
        """Returns the only image in an annotation's folder with its name. None if there is none."""
        beside = [
            path
            for path in self._index.find(annotation.stem)
            or self._unusual_index.find(annotation.stem)
            if path.parent == annotation.parent
        ]
        return beside[0] if len(beside) == 1 else None

    def find_all(
        self, annotation: Path, name: str | None = None, split: str | None = None
    ) -> list[Path]:
        """Finds the images that a name may mean.

        It looks for the whole name, then for the name without its suffix. Each time it looks for
        the exact name, then ignores capitals, percent-encoding and the Unicode form of accents.

        Args:
            annotation: The file that names the image.
            name: The name, with or without folders and suffix. The default is the annotation's.
            split: 'train', 'val' or 'test', if the annotation belongs to one.

        Returns:
            The images of that name. If some of them are in a folder of the annotation's split, only
            these. Among them, those that share the most folders with the name. Among them, those
            that share the most folders with the annotation.
        """
        if name is None:
            name = str(annotation.relative_to(self.root).with_suffix(''))
        name = plain_name(name)
        found = self._index.find(name) or self._unusual_index.find(name)
        if len(found) < 2:
            return found
        split = split or self.split_of(annotation)
        found = [path for path in found if split and self.split_of(path) == split] or found
        parents = PurePosixPath(name).parts[-2::-1]

        def nearness(path: Path) -> tuple[int, int]:
            return (
                _count_same(path.parts[-2::-1], parents),
                _count_same(path.parts, annotation.parts),
            )

        most = max(map(nearness, found))
        return [path for path in found if nearness(path) == most]

    def find(
        self, annotation: Path, name: str | None = None, split: str | None = None
    ) -> Path | None:
        """Finds the image that a name means. None if there is none, or if there are several.

        A mask may have the name of its photo. If :meth:`find_all` finds several images, the photo
        is the only one in a folder with a name such as ``images``, or the only JPEG.

        Args:
            annotation: The file that names the image.
            name: The name, as for :meth:`find_all`.
            split: The split, as for :meth:`find_all`.
        """
        found = self.find_all(annotation, name, split)
        if len(found) > 1:
            found = [path for path in found if _IMAGE_FOLDER.search(path.parent.name)] or found
        if len(found) > 1:
            found = [path for path in found if path.suffix.lower() in _JPEGS]
        return found[0] if len(found) == 1 else None

    def drop_strangers(self, pairs: Sequence[tuple[PurePath, Path | None]]) -> list[Path | None]:
        """Returns the images of annotations, without those of annotations in other folders.

        If annotations in several folders have the same name, the name alone does not identify an
        image, and the image may be missing. Then an image belongs to the annotations in the nearest
        folder, see :meth:`nearness`.

        Args:
            pairs: For each annotation its place relative to the root (its own, or the one that it
                names), and the image of its name. None if there is no image.

        Returns:
            The image of each annotation. None if it has none, or if the image belongs to another.
        """
        folders: dict[str, set[PurePath]] = defaultdict(set)
        for place, _ in pairs:
            folders[_fold(place.stem)].add(place.parent)
        if all(len(places) == 1 for places in folders.values()):
            return [image for _, image in pairs]
        all_places = [folder / 'any' for folder in set().union(*folders.values())]

        @cache
        def most(folder: Path) -> int:
            return max(self.nearness(place, folder / 'any')[0] for place in all_places)

        return [
            image if image and self.nearness(place, image)[0] == most(image.parent) else None
            for place, image in pairs
        ]

    def nearness(self, place: PurePath, image: Path) -> tuple[int, int]:
        """Rates how near an image is to the place of an annotation. Larger values are nearer.

        Args:
            place: The place, relative to the root.
            image: The image.

        Returns:
            The number of folder names that they share, without names such as ``images`` and
            ``labels``, and the number of all names in the place, negated.
        """
        shared = _words(place.parent) & _words(image.relative_to(self.root).parent)
        telling = [word for word in shared if not _FILLERS.fullmatch(word)]
        return len(telling), -len(place.parts)

    def is_elsewhere(self, place: PurePath, image: Path, count: int) -> bool:
        """Returns whether so many folders of an image and of an annotation's place differ.

        Args:
            place: The place of the annotation, relative to the root, or the one that it names.
            image: The image.
            count: The number of folders that differ, on both sides.
        """
        one, other = _words(place.parent), _words(image.relative_to(self.root).parent)
        return min(len(one - other), len(other - one)) >= count

    def find_unread(self, name: str) -> Path | None:
        """Returns a file of that name in a format that cannot be read, such as HEIC."""
        name = PurePosixPath(name.replace('\\', '/')).name
        others = self._others.get(name) or self._others.get(PurePosixPath(name).stem) or [None]
        return others[0]

    def split_of(self, path: Path) -> str | None:
        """Returns the split that a folder in the path of a file names, such as ``train2017``."""
        return split_from_words(path.relative_to(self.root).parts[:-1])

    def are_apart(self, one: Path, other: Path) -> bool:
        """Returns whether the folders of two files name different splits."""
        return len({self.split_of(one), self.split_of(other)} - {None}) > 1

    def describe_suffixes(self) -> str:
        """Returns the most frequent suffixes of the files, such as '8 .heic, 2 .txt'."""
        counts = Counter(path.suffix or path.name for path in self.files)
        return ', '.join(f'{count} {suffix}' for suffix, count in counts.most_common(4))


class _Index:
    """The images by their names, with and without the suffix."""

    def __init__(self, images: Iterable[Path]) -> None:
        self._exact: dict[str, list[Path]] = defaultdict(list)
        self._folded: dict[str, list[Path]] = defaultdict(list)
        for path in images:
            for name in {path.name, path.stem}:
                self._exact[name].append(path)
                self._folded[_fold(name)].append(path)

    def find(self, name: str) -> list[Path]:
        last = PurePosixPath(name).name
        for key in (last, PurePosixPath(last).stem):
            found = self._exact.get(key) or self._folded.get(_fold(key))
            if found:
                return found
        return []


def split_from_words(names: Iterable[str]) -> str | None:
    """Returns the split that one of the names means. None if there is none.

    A name means a split if the split is its first word, as in ``train2017`` or ``Validation``, or
    the only word with a meaning, as in ``obj_train_data``.
    """
    for name in names:
        words = re.findall('[a-z]+', name.lower())
        telling = [word for word in words if not _FILLERS.fullmatch(word)]
        for word in {*words[:1], *(telling if len(telling) == 1 else ())}:
            match = _SPLIT.fullmatch(word)
            if match:
                return match.lastgroup
    return None


def plain_name(name: str) -> str:
    """Returns the path of an image without the additions of tools.

    Some tools write Windows paths. Others write the query of a server for local files.
    """
    return name.replace('\\', '/').rpartition('?d=')[2]


def read_text(path: Path) -> str:
    """Reads a text in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Raises:
        PreparationError: If it has another encoding.
        OSError: If it cannot be read.
    """
    content = path.read_bytes()
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode('utf-16' if is_wide else 'utf-8-sig')
    except UnicodeDecodeError as error:
        raise PreparationError(f'{path} is not in UTF-8 ({error}): save it so') from error


def _walk(root: Path) -> Iterable[Path]:
    def fail(error: OSError) -> None:
        raise error

    around = root.resolve().parents
    seen: set[Path] = set()
    waiting = [root]
    for start in waiting:
        for place, folders, names in os.walk(start, onerror=fail):
            real = Path(place).resolve()
            if real in seen or real in around:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = [name for name in folders if not _is_hidden(name)]
            yield from (Path(place, name) for name in names if not _is_hidden(name))
            # os.walk skips links. They are searched after all other folders.
            waiting += [
                Path(place, name) for name in sorted(folders) if Path(place, name).is_symlink()
            ]


def _is_hidden(name: str) -> bool:
    return name.startswith('.') or name in _PROGRAMS_OWN


def _is_image(path: Path) -> bool:
    try:
        with Image.open(path, formats=_FORMATS):
            return True
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return False


def _fold(name: str) -> str:
    return unicodedata.normalize('NFC', unquote(name)).casefold()


@cache
def _words(folder: PurePath) -> frozenset[str]:
    """Returns the names of the folders in a path, and the split that one of them means."""
    split = split_from_words(folder.parts)
    return frozenset({_fold(part) for part in folder.parts} | ({split} if split else set()))


def _count_same(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Returns the number of equal parts at the beginning."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
