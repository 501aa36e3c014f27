"""Finds the images and videos that a command line names."""

import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from .errors import ExportError
from .images import IMAGE_SUFFIXES, is_image

VIDEO_SUFFIXES = {
    *('.mp4', '.m4v', '.avi', '.mov', '.mkv', '.webm', '.mpg', '.mpeg', '.wmv', '.mts', '.m2ts'),
    *('.ts', '.3gp', '.flv', '.ogv', '.mjpg', '.mjpeg', '.gif'),
}
# A line of text has room for so many names.
_SHOWN = 5
# The longest name of a stream, so that a file's name also has room for a code and for the time.
_LONGEST_STREAM = 100
# A password may contain @, and by mistake also /. The port behind a host is a number.
_USER = re.compile(r'//(?:[^/]*:(?!\d*/)[^/:@\]]*/.*|[^/]*)@')
_PASSWORD = re.compile(r'(?i)(passw(?:or)?d|pwd|pass)=.*?(?=[&/?#]|_[a-z]+=|$)')


@dataclass
class Sources:
    """The images and videos to predict.

    Attributes:
        images: The name of each image's results, relative to the folder that was named.
        videos: The name of each video's results. A number is a camera. A text is a device or an
            address.
        notes: Sentences about what is left out.
    """

    images: dict[Path, str] = field(default_factory=dict)
    videos: dict[Path | str | int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_sources(sources: Sequence[str], out: Path, recursive: bool = False) -> Sources:
    """Finds the images and videos that arguments name.

    It passes over hidden files and folders, and over ``__MACOSX``.

    Args:
        sources: Images, folders, videos, patterns such as '*.jpg', numbers of cameras, devices
            such as /dev/video0, and addresses such as rtsp://HOST/PATH.
        out: The folder of the results. Nothing is searched in it.
        recursive: Whether subfolders are searched.

    Returns:
        The images and videos.

    Raises:
        ExportError: If a source is empty, does not exist, or has neither images nor videos.
    """
    found = Sources()
    for source in _expand(sources):
        path = Path(source)
        if path.is_dir():
            _add_folder(found, path, out, recursive)
        elif path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
            found.videos[path] = path.name
        elif path.is_file():
            if not is_image(path) and path.stat().st_size:
                raise ExportError(
                    f'{path} is neither an image nor a video that OpenCV reads: convert it to PNG '
                    f'or MP4; if it lists files, one in a line, write @{path}'
                )
            found.images[path] = path.name
        elif not path.exists() and not _is_stream(source):
            # A broken link. Patterns find such links.
            raise ExportError(f'{source} leads to a file that does not exist: correct the link')
        else:
            stream = int(source) if source.isdecimal() else source
            found.videos[stream] = _stream_name(source)
    return found


def describe(names: Sequence[str]) -> str:
    """Returns the number of names and the first of them."""
    more = ', ...' if len(names) > _SHOWN else ''
    return f'{len(names)} ({", ".join(names[:_SHOWN])}{more})'


def hide_password(source: Path | str | int) -> str:
    """Returns an address without user, passwords and query. Other sources stay as they are."""
    if not isinstance(source, str):
        return str(source)
    # Some cameras have the password in the path, between underscores.
    return re.sub(r'\?.*', '?...', _PASSWORD.sub(r'\1=***', _USER.sub('//', source)))


def _expand(sources: Sequence[str]) -> Iterator[str]:
    for source in sources:
        if not source:
            # An empty path would be the current folder.
            raise ExportError(
                'a source is empty: name an image, folder, video, camera or address in its place'
            )
        if Path(source).exists() or _is_stream(source):
            yield source
            continue
        matches = sorted(glob.glob(source, recursive=True))  # noqa: PTH207
        if not matches:
            raise ExportError(f'{source}: no such image, folder, video, camera or address')
        yield from matches


def _is_stream(source: str) -> bool:
    if Path(source).is_file():
        return False
    return source.isdecimal() or '://' in source or source.startswith('/dev/')


def _stream_name(source: str) -> str:
    if source.isdecimal():
        return f'camera-{source}.mp4'
    address = urlsplit(hide_password(source))
    name = address.netloc + address.path.removeprefix('/dev/')
    name = re.sub(r'[^\w.-]+', '-', name).strip('-.') or 'stream'
    name = name.removesuffix('.mp4')
    if address.query or len(name) > _LONGEST_STREAM:
        # A query says which camera it is, but it may also hold a password.
        code = hashlib.sha256(os.fsencode(_USER.sub('//', source))).hexdigest()[:6]
        name = f'{name[:_LONGEST_STREAM]}-{code}'
    return f'{name}.mp4'


def _add_folder(found: Sources, folder: Path, out: Path, recursive: bool) -> None:
    out, seen = out.resolve(), set()
    others, subfolders, count = [], [], len(found.images) + len(found.videos)
    for place, folders, files in os.walk(folder, followlinks=True):
        here = Path(place).resolve()
        # Links may form a cycle.
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        folders[:] = sorted(
            name for name in folders if _is_own(name) and Path(place, name).resolve() != out
        )
        if not recursive:
            subfolders = folders[:]
            folders.clear()
        for name in sorted(filter(_is_own, files)):
            path = Path(place, name)
            relative = path.relative_to(folder).as_posix()
            if path.suffix.lower() in VIDEO_SUFFIXES:
                found.videos[path] = relative
            elif is_image(path):
                found.images[path] = relative
            else:
                others.append(relative)
    if count == len(found.images) + len(found.videos):
        inside = f', but folders, {describe(subfolders)}: add --recursive' if subfolders else ''
        raise ExportError(
            f'{folder} has no image ({", ".join(sorted(IMAGE_SUFFIXES))}) and no video{inside}'
        )
    if others:
        found.notes.append(
            f'{folder}: files that are neither images nor videos are left out, {describe(others)}'
        )
    if subfolders:
        found.notes.append(
            f'{folder}: the folders in it are left out, {describe(subfolders)}; --recursive '
            'predicts them, too'
        )


def _is_own(name: str) -> bool:
    return not name.startswith('.') and name != '__MACOSX'
