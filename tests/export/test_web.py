"""The page for browsers: what is written, and what is said before work is lost."""

import re
import runpy
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest

from hadaptive_runtime import load_exported
from mmdet_hadaptive.export import ExportError, export_detector, onnxruntime_web, web_page
from mmdet_hadaptive.export.onnxruntime_web import DIGESTS, find_onnxruntime_web
from mmdet_hadaptive.export.web_page import check_web_folder

from .conftest import small_config

FILES = {
    *('index.html', 'style.css', 'main.js', 'worker.js', 'detector.js', 'model_file.js'),
    *('preprocessing.js', 'images.js', 'videos.js', 'drawing.js', 'model.onnx'),
    'onnxruntime/ort.wasm.bundle.min.js',
    'onnxruntime/ort-wasm-simd-threaded.wasm',
}


@pytest.fixture
def package(tmp_path):
    """A folder that looks like the package as npm installs it."""
    dist = tmp_path / 'package/dist'
    dist.mkdir(parents=True)
    for name in DIGESTS:
        (dist / name).write_text(f'// {name}')
    return dist.parent


@pytest.fixture
def archive(package):
    """The same as npm packs it."""
    file = package.parent / 'packed.tgz'
    with tarfile.open(file, 'w:gz') as tar:
        tar.add(package, 'package')
    return file


@pytest.fixture
def npm(tmp_path, monkeypatch, archive):
    """A program in place of npm that notes its arguments; no other program can be found."""
    log, program = tmp_path / 'npm.log', tmp_path / 'bin/npm'
    program.parent.mkdir()
    monkeypatch.setenv('PATH', str(program.parent))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    digests = {}
    for name in DIGESTS:
        content = (archive.parent / 'package/dist' / name).read_bytes()
        digests[name] = onnxruntime_web.hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(onnxruntime_web, 'DIGESTS', digests)

    def write(last_line):
        program.write_text(f'#!/bin/sh\necho "$*" >> {log}\n{last_line}\n')
        program.chmod(0o755)

    write(f'/bin/cp {archive} "$5"')
    return write, lambda: log.read_text().splitlines()


def written(folder):
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob('*')
        if file.is_file()
    }


def test_the_tool_writes_a_page(untrained, package, tmp_path, monkeypatch, pytestconfig, capsys):
    root, checkpoint = untrained
    small_config(root).dump(tmp_path / 'config.py')
    monkeypatch.chdir(tmp_path)
    # A page that is there is replaced.
    Path('page').mkdir()
    Path('page/main.js').write_text('old')
    command = f'tool config.py {checkpoint} page --format web --exporter torchscript'
    command += f' --no-check --onnxruntime-web {package}'
    monkeypatch.setattr('sys.argv', command.split())
    runpy.run_path(str(pytestconfig.rootpath / 'tools/export.py'), run_name='__main__')
    output = capsys.readouterr().out
    assert re.search(r'^written: page \(0\.\d MiB\)\n', output, re.MULTILINE)
    assert 'python -m http.server -d page' in output
    files = written(tmp_path / 'page')
    assert files.keys() == FILES
    assert files['onnxruntime/ort.wasm.bundle.min.js'] == b'// ort.wasm.bundle.min.mjs'
    # What is exported runs in Python as well.
    detector = load_exported('page/model.onnx')
    assert detector.classes == ['disk', 'ring', 'triangle', 'cross']
    detector(np.zeros((50, 60, 3), np.uint8))

    monkeypatch.setattr('sys.argv', command.replace(' --no-check', '').split())
    with pytest.raises(SystemExit, match='nothing is written'):
        runpy.run_path(str(pytestconfig.rootpath / 'tools/export.py'), run_name='__main__')
    assert written(tmp_path / 'page') == files
    assert not list(tmp_path.glob('*.unfinished'))


def test_the_page_names_files_that_are_there():
    """Every file is named by another, and every name is that of a file."""
    folder = Path(web_page.__file__).with_name('page')
    texts = {file.name: file.read_text() for file in folder.iterdir()}
    name = r"""['"](?:\./)?((?:\w+/)?[\w.-]+\.(?:js|css|wasm|onnx))['"]"""
    named = {found for text in texts.values() for found in re.findall(name, text)}
    assert named == FILES - {'index.html'}
    # Nothing comes from elsewhere.
    assert set(re.findall(r'https?://[^\s\'"]+', ''.join(texts.values()))) == {
        'http://www.w3.org/2000/svg'
    }
    assert "default-src 'none'" in texts['index.html']
    assert max(text.count('\n') for text in texts.values()) <= 400


@pytest.mark.parametrize(
    ('others', 'message'),
    [
        (['notes.txt'], r'page is replaced as a whole, .* notes\.txt: name another folder'),
        (['a', 'b', 'images/c', 'd'], r'of a page, a, b, d, \.\.\.: name another'),
        (['index.html', 'onnxruntime/other.wasm'], r'of a page, onnxruntime/other\.wasm: name'),
    ],
)
def test_folders_with_other_files_stay(untrained, tmp_path, others, message):
    root, checkpoint = untrained
    for name in others:
        file = tmp_path / 'page' / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('mine')
    with pytest.raises(ExportError, match=message):
        export_detector(small_config(root), checkpoint, tmp_path / 'page', 'web')
    assert written(tmp_path / 'page') == dict.fromkeys(others, b'mine')


def test_what_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('file').write_text('mine')
    for out in ('file', 'model.onnx'):
        with pytest.raises(ExportError, match=rf'^{out} must be a folder'):
            check_web_folder(Path(out))
    for out in ('.', '..'):
        with pytest.raises(ExportError, match=r'cannot be replaced as a whole: name a folder in'):
            check_web_folder(Path(out))
    Path('model.onnx').mkdir()
    for out in ('page', 'v1.2', 'model.onnx', 'new/page'):
        check_web_folder(Path(out))


def test_npm_downloads_once(npm, tmp_path, capsys):
    _, calls = npm
    for _ in range(2):
        found = find_onnxruntime_web()
        assert {name: text.decode() for name, text in found.items()} == {
            name: f'// {name}' for name in DIGESTS
        }
    (call,) = calls()
    assert call.startswith(f'pack onnxruntime-web@{onnxruntime_web.VERSION} --silent --pack-dest')
    assert capsys.readouterr().out.count('npm downloads onnxruntime-web@') == 1
    # What was damaged since is downloaded again.
    (kept,) = (tmp_path / 'cache/mmdet_hadaptive').iterdir()
    assert {file.name for file in kept.iterdir()} == set(DIGESTS)
    next(kept.iterdir()).write_text('damaged')
    assert find_onnxruntime_web() == found
    assert len(calls()) == 2


def test_where_the_cache_cannot_be_written(npm, tmp_path, capsys):
    (tmp_path / 'cache').write_text('in the way')
    assert find_onnxruntime_web().keys() == DIGESTS.keys()
    assert 'ONNX Runtime Web is not kept in ' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('last_line', 'message'),
    [
        ('echo first; echo offline; exit 7', r'does not download .*\(7: offline\): name the pack'),
        ('exit 0', r'does not download onnxruntime-web@[\d.]+ \(0\): name the package'),
        ('echo rubbish > "$5/a.tgz"', r'a\.tgz is not the package onnxruntime-web, too old, or da'),
    ],
)
def test_npm_fails(npm, untrained, tmp_path, last_line, message):
    write, _ = npm
    write(last_line)
    root, checkpoint = untrained
    with pytest.raises(ExportError, match=message) as error:
        export_detector(small_config(root), checkpoint, tmp_path / 'page', 'web')
    assert '--onnxruntime-web; it is what `npm pack onnxruntime-web@' in str(error.value)
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'page').exists()
    assert not (tmp_path / 'cache').exists()


def test_no_npm(npm, tmp_path):
    shutil.rmtree(tmp_path / 'bin')
    with pytest.raises(ExportError, match=r'there is no npm to download it: name the package'):
        find_onnxruntime_web()


def test_another_release_from_npm_is_refused(npm, monkeypatch):
    monkeypatch.setattr(onnxruntime_web, 'DIGESTS', dict.fromkeys(DIGESTS, '0' * 64))
    with pytest.raises(ExportError, match=r'does not fit the SHA-256 that the release has'):
        find_onnxruntime_web()


def test_the_package_that_a_user_names(package, archive, tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', '')
    expected = find_onnxruntime_web(package)
    assert expected.keys() == DIGESTS.keys()
    for source in (package / 'dist', package.parent, archive):
        assert find_onnxruntime_web(source) == expected
    content = archive.read_bytes()
    for damaged in (content[: len(content) // 2], b'', b'rubbish'):
        archive.write_bytes(damaged)
        with pytest.raises(ExportError, match=r'packed\.tgz is not the package') as error:
            find_onnxruntime_web(archive)
        assert '\n' not in str(error.value)
    for folder in (tmp_path / 'bin', tmp_path / 'nowhere'):
        with pytest.raises(ExportError, match=rf'{folder.name} has no ort\.wasm\.bundle\.min\.mjs'):
            find_onnxruntime_web(folder)
    next((package / 'dist').iterdir()).unlink()
    with pytest.raises(ExportError, match='package has no ort'):
        find_onnxruntime_web(package)


def test_every_script_is_javascript(tmp_path):
    node = shutil.which('node')
    if node is None:
        pytest.skip('needs node: apt-get install nodejs')
    for file in Path(web_page.__file__).with_name('page').glob('*.js'):
        # By its name node knows a module.
        module = tmp_path / f'{file.stem}.mjs'
        module.write_bytes(file.read_bytes())
        result = subprocess.run([node, '--check', module], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
