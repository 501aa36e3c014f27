import os
import re
import warnings
from importlib.metadata import version

import pytest

from mmdet_hadaptive.utils import installation


@pytest.fixture
def fake(tmp_path, run):
    """Imports the package in an environment in which some libraries are faked."""

    def import_with(code=1, **libraries):
        for name, (number, source) in libraries.items():
            package = tmp_path / name
            package.mkdir()
            (package / '__init__.py').write_text(source)
            info = tmp_path / f'{name}-{number}.dist-info'
            info.mkdir()
            (info / 'METADATA').write_text(
                f'Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n'
            )
        return run(
            '-c',
            'import mmdet_hadaptive',
            cwd=tmp_path,
            code=code,
            env=dict(PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])),
        )

    return import_with


def check(output, found, remedy):
    assert 'ImportError: mmdet_hadaptive cannot run on this installation' in output
    assert found in output
    assert 'needed: torch 2.5 or later, with mmdet 3.2 or 3.3' in output
    assert remedy in output
    # One error, not a chain of them.
    assert output.count('Traceback') == 1


def test_old_torch(fake):
    output = fake(torch=('2.4.1', ''))
    check(output, 'torch 2.4.1 is too old', 'pip install torch==2.13.0; pip uninstall -y mmcv')


def test_old_mmdet(fake):
    output = fake(mmdet=('3.1.0', ''))
    check(output, 'mmdet 3.1.0 is too old', 'pip install mmengine==0.10.7 mmdet==3.3.0')


def test_mmcv_without_ops(fake):
    output = fake(mmcv=('2.1.0', "__version__ = '2.1.0'"), mmdet=('3.3.0', ''))
    check(output, 'mmcv 2.1.0 has no working compiled ops', 'MMCV_WITH_OPS=1 pip install')
    assert "No module named 'mmcv.ops'" in output


def test_mmcv_too_new(fake):
    # What mmdet's own check says.
    source = (
        "raise AssertionError('MMCV==2.3.0 is used but incompatible. Please install mmcv<2.2.')"
    )
    output = fake(mmcv=('2.3.0', ''), mmdet=('3.3.0', source))
    check(output, 'MMCV==2.3.0 is used but incompatible', 'mmcv==2.1.0')


@pytest.mark.parametrize('missing', ['pycocotools', 'shapely'])
def test_mmdet_without_what_it_imports(tmp_path, run, missing):
    code = f"import sys; sys.modules['{missing}'] = None; import mmdet_hadaptive"
    output = run('-c', code, cwd=tmp_path, code=1)
    check(output, missing, 'pip install mmengine==0.10.7 mmdet==3.3.0')


def test_mmpretrain_beside_a_too_new_transformers(fake):
    pytest.importorskip('mmpretrain', reason='needs mmpretrain: research/requirements.txt')
    # All that mmpretrain imports of it is there but for what was removed.
    source = """
import sys, types
class Module(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith('__') or name == 'find_pruneable_heads_and_indices':
            raise AttributeError(name)
        return type(name, (), {})
for name in ('models.auto.auto_factory', 'activations', 'modeling_outputs', 'modeling_utils'):
    for end in range(1, name.count('.') + 2):
        full = '.'.join(['transformers', *name.split('.')[:end]])
        sys.modules[full] = Module(full)
sys.modules[__name__].__class__ = Module
"""
    output = fake(transformers=('5.0.0', source))
    check(output, 'cannot be imported beside transformers 5.0.0', '"transformers<4.56"')


def test_no_pkg_resources(tmp_path, run):
    code = (
        'import sys, mmdet, mmcv.ops, importlib.util as u; find = u.find_spec\n'
        "u.find_spec = lambda name, *a: None if name == 'pkg_resources' else find(name, *a)\n"
        'import mmdet_hadaptive'
    )
    output = run('-c', code, cwd=tmp_path, code=1)
    check(output, 'setuptools has no pkg_resources', 'pip install "setuptools>=77.0.3,<81"')


def test_source_folder_without_metadata(tmp_path, run):
    code = (
        'import mmdet\n'
        'from importlib import metadata\n'
        'version = metadata.version\n'
        'def unknown(name):\n'
        "    if 'mmdet' in name: raise metadata.PackageNotFoundError(name)\n"
        '    return version(name)\n'
        'metadata.version = unknown\n'
        'from mmdet_hadaptive.utils.installation import installed_version\n'
        'print(installed_version("mmdet"))'
    )
    assert run('-c', code, cwd=tmp_path).splitlines()[-1] == 'of unknown version'


def test_no_mmcv(tmp_path, run):
    code = "import sys; sys.modules['mmcv'] = None; import mmdet_hadaptive"
    check(run('-c', code, cwd=tmp_path, code=1), 'mmcv is missing', 'mmcv==2.1.0')


def test_import_prints_nothing(tmp_path, run):
    output = run('-c', 'import mmdet_hadaptive', cwd=tmp_path)
    # torch 2.5 shows, whatever the filter, that MMEngine imports something deprecated.
    output = re.sub(r'.*zero_optimizer\.py:\d+: DeprecationWarning: .*\n.*\n', '', output)
    # The fork of MMDetection prints this line whenever its data sets are imported.
    assert output.replace('Could not import OneDL. Skipping OneDL datasets.\n', '') == ''


def test_the_message_lists_all_versions(fake):
    output = fake(mmdet=('2.28.2', ''))
    assert f'torch {version("torch")}' in output
    assert 'mmengine' in output.split('found:')[1].split('\n')[0]


def test_tools_hide_the_warning_of_pkg_resources():
    message = 'pkg_resources is deprecated as an API. See https://setuptools.pypa.io'
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        installation.silence_pkg_resources()
        for text in (message, 'another one'):
            warnings.warn(text, UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == ['another one']
