"""What an installation brings: configs and tools, under the names that OpenMMLab gives them."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from short_training import SHORT_TRAINING

ROOT = Path(__file__).parents[2]
SITE_PACKAGES = sysconfig.get_path('purelib')
SHAPES = 'mmdet_hadaptive::ssdlite/ssdlite_hadaptive-s_shapes.py'
OPTIONS = (
    '--cfg-options',
    *SHORT_TRAINING,
    'train_cfg.val_interval=1',
    'train_dataloader.dataset.times=1',
    'train_dataloader.dataset.dataset.indices=4',
    'train_dataloader.batch_size=2',
    'val_dataloader.dataset.indices=2',
)


def run(python, *arguments, cwd):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'}
    environment.pop('PYTHONPATH', None)
    result = subprocess.run(
        [python, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    return result.stdout


def build(function, source, out):
    """Calls a hook of the build backend, as pip does, without looking for anything to download."""
    code = f'from setuptools import build_meta; build_meta.{function}({str(out)!r})'
    run(sys.executable, '-c', code, cwd=source)
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A copy of what is built, because building leaves folders behind."""
    folder = tmp_path_factory.mktemp('source') / 'clone'
    ignore = shutil.ignore_patterns('__pycache__')
    for name in ('mmdet_hadaptive', 'hadaptive_runtime', 'configs', 'tools'):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignore)
    for name in ('LICENSE', 'README.md', 'model-index.yml', 'pyproject.toml'):
        shutil.copy(ROOT / name, folder)
    for file in ROOT.glob('requirements*.txt'):
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory):
    return build('build_wheel', source, tmp_path_factory.mktemp('wheel'))


@pytest.fixture(scope='module')
def environment(tmp_path_factory):
    """Makes a virtual environment of one wheel that sees this one's libraries behind it."""

    def install(wheel):
        folder = tmp_path_factory.mktemp('environment')
        venv.create(folder)
        python = folder / 'bin/python'
        options = ('--quiet', '--no-index', '--no-deps')
        run(sys.executable, '-m', 'pip', '--python', python, 'install', *options, wheel, cwd=folder)
        (site_packages,) = folder.glob('lib/python*/site-packages')
        # A path in such a file comes after the folder that the file is in, and is not searched for
        # other such files: the package that is installed there, perhaps editable, is not seen. The
        # one of setuptools stands in for distutils, which MMEngine imports and Python 3.12 lacks.
        distutils = Path(SITE_PACKAGES, 'distutils-precedence.pth').read_text()
        (site_packages / 'libraries.pth').write_text(f'{SITE_PACKAGES}\n{distutils}')
        return python

    return install


@pytest.fixture(scope='module')
def python(environment, wheel, tmp_path_factory):
    """The interpreter of an environment with the wheel."""
    python = environment(wheel)
    code = "from importlib.util import find_spec; print(find_spec('mmdet_hadaptive').origin)"
    origin = Path(run(python, '-c', code, cwd=tmp_path_factory.mktemp('empty')).strip())
    assert origin.is_relative_to(python.parents[1])
    return python


@pytest.fixture(scope='module')
def work(shapes):
    """A folder with data sets and nothing else; the shapes pass for COCO too."""
    from mmdet.datasets import CocoDataset

    work = shapes.parents[1]
    coco = work / 'data/coco'
    (coco / 'annotations').mkdir(parents=True)
    classes = CocoDataset.METAINFO['classes']
    for split in ('train', 'val'):
        (coco / f'{split}2017').symlink_to(shapes / split)
        file = f'annotations/instances_{split}'
        content = json.loads((shapes / f'{file}.json').read_text())
        content['categories'] = [dict(id=i, name=name) for i, name in enumerate(classes, 1)]
        (coco / f'{file}2017.json').write_text(json.dumps(content))
    return work


@pytest.fixture
def mim(python, work):
    return lambda *arguments: run(python, '-m', 'mim', *arguments, cwd=work)


def check_training(output):
    assert re.search(r'Epoch\(train\) +\[1\]\[2/2\]', output)
    assert re.search(r'Epoch\(val\) +\[1\]\[\d/\d\]', output)
    assert not re.findall(r'.*WARNING.*(?:scope|registry|not installed).*', output)


def test_wheel_has_configs_tools_and_index(wheel):
    with zipfile.ZipFile(wheel) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    mim = 'mmdet_hadaptive/.mim/'
    for name, data in content.items():
        if name.startswith(mim):
            assert data == (ROOT / name.removeprefix(mim)).read_bytes(), name
    assert 'mmdet_hadaptive/py.typed' in content
    assert 'hadaptive_runtime/detector.py' in content
    for folder, least in (('export/page', 5), ('weights', 2)):
        files = sorted((ROOT / 'mmdet_hadaptive' / folder).iterdir())
        assert len(files) >= least
        for file in files:
            assert content[f'mmdet_hadaptive/{folder}/{file.name}'] == file.read_bytes()
    expected = {
        path.relative_to(ROOT).as_posix()
        for pattern in ('configs/**/*.*', 'tools/*.*')
        for path in ROOT.glob(pattern)
        if path.suffix in ('.py', '.yml', '.md', '.sh')
    }
    for metafile in yaml.safe_load(content[f'{mim}model-index.yml'])['Import']:
        described = yaml.safe_load(content[mim + metafile])
        expected |= {collection['README'] for collection in described['Collections']}
        expected |= {model['Config'] for model in described['Models']}
    assert {mim + name for name in expected} <= set(content)
    roots = {name.split('/')[0] for name in content}
    assert {root for root in roots if not root.endswith('.dist-info')} == {
        'hadaptive_runtime',
        'mmdet_hadaptive',
    }
    assert not [name for name in content if 'research' in name]


def test_wheel_of_the_source_distribution_is_the_same(source, wheel, tmp_path):
    for name in ('sdist', 'wheel'):
        (tmp_path / name).mkdir()
    with tarfile.open(build('build_sdist', source, tmp_path / 'sdist')) as archive:
        archive.extractall(tmp_path, filter='data')
    (folder,) = tmp_path.glob('mmdet_hadaptive-*')
    again = build('build_wheel', folder, tmp_path / 'wheel')
    contents = []
    for file in (wheel, again):
        with zipfile.ZipFile(file) as archive:
            contents.append({info.filename: info.CRC for info in archive.infolist()})
    assert contents[0] == contents[1]


def test_mim_trains_a_config_by_its_name(mim):
    name = 'ssdlite_hadaptive-s_8xb24-600e_coco.py'
    output = mim('train', 'mmdet_hadaptive', name, '--gpus', 0, '--work-dir', 'by_name', *OPTIONS)
    assert f'.mim/configs/ssdlite/{name} instead' in output
    check_training(output)


@pytest.mark.parametrize(
    ('command', 'base'),
    [
        (('run', 'mmdet_hadaptive', 'train'), repr(SHAPES)),
        # MMDetection's own script does not import this package before it reads the config.
        (('train', 'mmdet', '--gpus', 0), f"__import__('mmdet_hadaptive') and {SHAPES!r}"),
    ],
    ids=['mmdet_hadaptive', 'mmdet'],
)
def test_mim_trains_a_config_that_inherits(mim, work, command, base):
    if 'mmdet' in command and next(metadata.Distribution.discover(name='mmdet'), None) is None:
        pytest.skip('OpenMIM knows MMDetection by its official name only: run without STACK=onedl')
    config = work / 'inherits.py'
    config.write_text(
        f'_base_ = {base}\n'
        'custom_hooks = _base_.custom_hooks\n'
        "model = dict(backbone=dict(norm_cfg=dict(type='BN', eps=1e-5)))\n"
    )
    check_training(mim(*command, config, '--work-dir', 'inherits', *OPTIONS))


INHERITS = f"""
from mmengine.config import Config
from mmengine.hub import get_config

import mmdet_hadaptive
from mmdet.registry import HOOKS, MODELS

inherits = Config.fromstring("_base_ = {SHAPES!r}\\ncustom_hooks = _base_.custom_hooks", '.py')
assert {{hook._scope_ for hook in inherits.custom_hooks}} == {{'mmdet_hadaptive'}}
hooks = [type(HOOKS.build(hook)).__name__ for hook in inherits.custom_hooks]
backbone = MODELS.build(inherits.model).backbone
got = get_config('mmdet_hadaptive::ssdlite/ssdlite_hadaptive-l_8xb24-600e_coco.py')
print(*hooks[:3], type(backbone).__name__, got.model.backbone.arch, got.filename)
"""


def check_inheritance(output, folder):
    assert 'WARNING' not in output
    *found, file = output.splitlines()[-1].split()
    hooks = ['NumClassCheckHook', 'StopOnInvalidLossHook', 'EpochSeedHook']
    assert found == [*hooks, 'HadaptiveNet', 'large']
    assert Path(file).is_relative_to(folder)
    assert Path(file).is_file()


def test_configs_by_name_in_python(python, tmp_path):
    check_inheritance(run(python, '-c', INHERITS, cwd=tmp_path), python.parents[1])


def test_configs_by_name_when_editable(environment, source, tmp_path, tmp_path_factory):
    python = environment(build('build_editable', source, tmp_path_factory.mktemp('wheel')))
    check_inheritance(run(python, '-c', INHERITS, cwd=tmp_path), source)


HELP = """
import contextlib, io, runpy, sys
from pathlib import Path
from mim.utils import get_installed_path

for tool in Path(get_installed_path('mmdet_hadaptive'), '.mim/tools').glob('*.py'):
    sys.argv = [str(tool), '--help']
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        runpy.run_path(str(tool), run_name='__main__')
    print(tool.stem, 'usage' in text.getvalue())
"""


def test_every_tool_runs_where_mim_looks_for_it(python, tmp_path):
    pytest.importorskip('onnxruntime')
    found = run(python, '-c', HELP, cwd=tmp_path).splitlines()
    assert {f'{file.stem} True' for file in ROOT.glob('tools/*.py')} <= set(found)
