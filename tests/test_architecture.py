"""The rules of docs/architecture.md, held against the imports of every module."""

import ast
import re
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'mmdet_hadaptive'
# .mim links to the folders of configs and tools.
MODULES = sorted(path for path in PACKAGE.rglob('*.py') if '.mim' not in path.parts)
RUNTIME = ROOT / 'hadaptive_runtime'
# Of each module what it may import beside the standard library; the others only the first two.
RUNTIME_LIBRARIES = {
    # Where it is installed; for tiles.
    'detections': {'supervision'},
    'onnx_session': {'onnxruntime'},
    'openvino_session': {'openvino'},
    'ncnn_session': {'ncnn'},
    'litert_session': {'ai_edge_litert'},
    # Its Python interface takes and gives tensors.
    'executorch_session': {'executorch', 'torch'},
}
LIBRARIES = {
    'ops': {'torch', 'triton'},
    'layers': {'torch'},
}
MAX_LINES = 400


def room(path):
    return path.relative_to(PACKAGE).with_suffix('').parts[0]


def imports(path):
    """Dotted name and the name that it is bound to, of everything that a file imports."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = '.'.join((*start, *([node.module] if node.module else [])))
            for alias in node.names:
                yield f'{module}.{alias.name}', alias.asname or alias.name


def libraries_of(path):
    return {name.split('.')[0] for name, _ in imports(path)} - sys.stdlib_module_names


def imports_of_package(path):
    for name, bound in imports(path):
        first, _, rest = name.partition('.')
        if first == PACKAGE.name and rest:
            yield rest.split('.'), bound


def found_arrows():
    arrows = {room(path): set() for path in MODULES}
    for path in MODULES:
        targets = {parts[0] for parts, _ in imports_of_package(path)}
        arrows[room(path)] |= targets & arrows.keys() - {room(path)}
    return arrows


def documented_arrows():
    page = (ROOT / 'docs/architecture.md').read_text().partition('## The import rule')[0]
    rows = re.findall(r'^\| `(\w+)` \| .* \|([^|]*)\|$', page, re.MULTILINE)
    return {name: set(re.findall(r'`(\w+)`', cell)) for name, cell in rows}


def private(name):
    return name.startswith('_') and not name.startswith('__')


def test_rooms_import_what_the_table_says():
    assert found_arrows() == documented_arrows()


def test_no_circle_of_rooms():
    # Raises CycleError, which names the circle.
    assert [*TopologicalSorter(found_arrows()).static_order()]


def test_the_order_of_the_rule():
    arrows = found_arrows()
    assert arrows['ops'] == set()
    assert arrows['layers'] <= {'ops'}
    assert arrows['models'] <= {'ops', 'layers'}


def test_the_product_does_without_the_laboratory():
    product = [*MODULES, *RUNTIME.glob('*.py')]
    for folder in ('configs', 'tools', 'demo'):
        product += (ROOT / folder).rglob('*.py')
    for path in product:
        assert 'research' not in libraries_of(path), path
        assert "'research." not in path.read_text(), path


def test_the_backbone_needs_no_mmdetection():
    for name in ('hadaptive_net', 'architectures', 'adaptive_blocks', 'norms'):
        libraries = libraries_of(PACKAGE / f'models/{name}.py')
        assert libraries <= {PACKAGE.name, 'torch', 'mmengine', 'mmcv'}


@pytest.mark.parametrize('path', MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module(path):
    text = path.read_text()
    lines = text.count('\n')
    assert lines <= MAX_LINES
    libraries = libraries_of(path)
    assert not libraries & {'tools', 'tests', 'research'}
    if room(path) in LIBRARIES:
        assert libraries - {PACKAGE.name} <= LIBRARIES[room(path)]

    own = {bound: parts for parts, bound in imports_of_package(path)}
    assert [parts for parts in own.values() if any(map(private, parts))] == []
    reached = [
        f'{node.value.id}.{node.attr}'
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in own
        and private(node.attr)
    ]
    assert reached == []


@pytest.mark.parametrize('path', sorted(RUNTIME.glob('*.py')), ids=lambda path: path.stem)
def test_exported_detectors_run_without_torch_and_mmdetection(path):
    assert path.read_text().count('\n') <= MAX_LINES
    allowed = {RUNTIME.name, 'numpy', 'cv2'} | RUNTIME_LIBRARIES.get(path.stem, set())
    assert libraries_of(path) <= allowed
