"""Finds ONNX Runtime Web, from npm or a folder. A page needs two of its files."""

import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from hadaptive_runtime import ExportError
from hadaptive_runtime.errors import describe_error

# A fixed release: older ones lack files that the page names, and newer ones may have other
# operators or rounding. The page's boxes were compared with Python's with this release.
VERSION = '1.30.0'
PACKAGE = f'onnxruntime-web@{VERSION}'
# The SHA-256 of the two files. The first is its JavaScript. The other is the build for the CPU,
# with SIMD, and with threads if a page may have them.
DIGESTS = {
    'ort.wasm.bundle.min.mjs': '11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90',
    'ort-wasm-simd-threaded.wasm': (
        '3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2'
    ),
}
_SECONDS = 300
_REMEDY = (
    f'name the package or its folder with --onnxruntime-web; it is what `npm pack {PACKAGE}` '
    'writes, on any machine that has npm'
)


def find_onnxruntime_web(source: Path | None = None) -> dict[str, bytes]:
    """Finds the files of ONNX Runtime Web.

    Without a source they are those of :data:`VERSION`. npm downloads them once to
    ``$XDG_CACHE_HOME/mmdet_hadaptive`` (``~/.cache`` if it is not set).

    Args:
        source: The package ``onnxruntime-web`` as npm packs it (.tgz), or its folder as npm
            installs it, or ``dist`` in this folder. It may be another release.

    Returns:
        The content of each file in :data:`DIGESTS`.

    Raises:
        ExportError: If they cannot be found or downloaded. It names the remedy.
    """
    if source is not None:
        return _read_archive(source) if source.is_file() else _read_folder(source)
    cache = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'mmdet_hadaptive'
    folder = cache / f'onnxruntime-web-{VERSION}'
    try:
        found = _read_folder(folder)
        _check(found)
        return found
    except ExportError:
        found = _download()
    _check(found)
    _keep(found, folder)
    return found


def _read_folder(folder: Path) -> dict[str, bytes]:
    for place in (folder, folder / 'dist', folder / 'package/dist'):
        if all((place / name).is_file() for name in DIGESTS):
            return {name: (place / name).read_bytes() for name in DIGESTS}
    raise ExportError(
        f'{folder} has no {" and ".join(DIGESTS)}, nor has a folder dist in it: {_REMEDY}'
    )


def _read_archive(file: Path) -> dict[str, bytes]:
    try:
        with tarfile.open(file) as archive:
            return {name: archive.extractfile(f'package/dist/{name}').read() for name in DIGESTS}
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise ExportError(
            f'{file} is not the package onnxruntime-web, too old, or damaged '
            f'({describe_error(error)}): {_REMEDY}'
        ) from error


def _download() -> dict[str, bytes]:
    npm = shutil.which('npm')
    if npm is None:
        raise ExportError(
            f'a page needs ONNX Runtime Web, and there is no npm to download it: {_REMEDY}'
        )
    print(f'npm downloads {PACKAGE}, once (33 MB)', flush=True)
    with TemporaryDirectory() as folder:
        command = [npm, 'pack', PACKAGE, '--silent', '--pack-destination', folder]
        try:
            result = subprocess.run(
                command,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_SECONDS,
            )
            said, status = result.stdout.strip().splitlines(), result.returncode
        except subprocess.TimeoutExpired:
            said, status = [], f'nothing after {_SECONDS} s'
        packed = list(Path(folder).glob('*.tgz'))
        if status or not packed:
            last = f': {said[-1][:200]}' if said else ''
            raise ExportError(f'npm does not download {PACKAGE} ({status}{last}): {_REMEDY}')
        return _read_archive(packed[0])


def _check(found: dict[str, bytes]) -> None:
    for name, content in found.items():
        if hashlib.sha256(content).hexdigest() != DIGESTS[name]:
            raise ExportError(
                f'{name} of {PACKAGE} does not fit the SHA-256 that the release has: {_REMEDY}'
            )


def _keep(found: dict[str, bytes], folder: Path) -> None:
    """Writes the files. Other processes may do so at the same time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as unfinished:
            for name, content in found.items():
                made = Path(unfinished, name)
                made.write_bytes(content)
                made.replace(folder / name)
    except OSError as error:
        print(f'ONNX Runtime Web is not kept in {folder}: {error}')
