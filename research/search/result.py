"""What a search leaves: a config, its probabilities, and a picture of how they came to be."""

import ast
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .search_spaces import describe_candidate


def find_base(config_file: str | Path | None) -> str | list[str]:
    """What a search's config inherits, with absolute paths.

    Args:
        config_file: The config's file.

    Returns:
        The value of its ``_base_``.

    Raises:
        ValueError: If it inherits nothing, or what it inherits is no text or list of texts.
    """
    text = Path(config_file).read_text() if config_file else ''
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '_base_':
            try:
                value = ast.literal_eval(node.value)
            except ValueError as error:
                raise ValueError(
                    f'_base_ of {config_file} is computed, so that the config of what is found '
                    'cannot name it: write the path or name as it is'
                ) from error
            folder = Path(config_file).resolve().parent
            if isinstance(value, str):
                return _absolute(value, folder)
            return [_absolute(base, folder) for base in value]
    raise ValueError(
        f'{config_file} inherits no training config (_base_), which the config of what is found is '
        'to inherit: write the search as a config that inherits the training'
    )


def _absolute(base: str, folder: Path) -> str:
    # 'mmdet::...' names a config of a library.
    return base if '::' in base else str((folder / base).resolve())


def render_config(
    base: str | Sequence[str],
    backbone: Mapping[str, Any],
    table: Mapping[str, Any],
    comment: Sequence[str],
) -> str:
    """Writes the config that trains a network from scratch.

    Args:
        base: What it inherits.
        backbone: The search's backbone, with ``type`` and ``arch``, which are replaced; what its
            type names before ``HadaptiveSearchNet`` stays.
        table: The architecture.
        comment: Lines that say where it comes from.

    Returns:
        The text of the file.
    """
    options = {key: value for key, value in backbone.items() if key not in ('type', 'arch')}
    kind = backbone['type'].replace('HadaptiveSearchNet', 'HadaptiveNet')
    lines = [f'# {line}' for line in comment]
    lines += [
        f'_base_ = {base!r}',
        '',
        'model = dict(',
        '    backbone=dict(',
        '        _delete_=True,',
        f'        type={kind!r},',
        '        arch=dict(',
        '            stages=[',
    ]
    for stage in table['stages']:
        blocks = [f'                    {_render(block)},' for block in stage]
        lines += ['                [', *blocks, '                ],']
    lines += [
        '            ],',
        f'            final_channels={table["final_channels"]},',
        '        ),',
    ]
    lines += [f'        {key}={_render(value)},' for key, value in options.items()]
    lines += ['    )', ')']
    return '\n'.join(lines) + '\n'


def _render(value: Any) -> str:
    if isinstance(value, Mapping):
        return f'dict({", ".join(f"{key}={_render(child)}" for key, child in value.items())})'
    if isinstance(value, list):
        return f'[{", ".join(map(_render, value))}]'
    return repr(value)


def render_result(content: Mapping[str, Any]) -> str:
    """Writes what a search has found as JSON, indented."""
    return json.dumps(content, indent=1) + '\n'


def draw_choices(
    names: Sequence[str],
    candidates: Sequence[Sequence[Mapping[str, Any] | None]],
    history: Sequence[Mapping[str, Any]],
    out_file: str | Path,
) -> None:
    """Draws how the probabilities of the candidates developed, a panel for each choice.

    Args:
        names: The names of the choices.
        candidates: The candidates of each choice, blocks of a table.
        history: For each epoch ``probabilities`` (for each choice of each candidate) and
            ``expected_cost``, as a part of the target.
        out_file: Picture to write.
    """
    columns = min(4, len(names))
    rows = -(-(len(names) + 1) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.4 * rows), layout='constrained')
    panels = figure.subplots(rows, columns, squeeze=False).flat
    epochs = range(1, len(history) + 1)
    for number, (name, blocks) in enumerate(zip(names, candidates, strict=True)):
        axis = panels[number]
        for index, block in enumerate(blocks):
            values = [record['probabilities'][number][index] for record in history]
            axis.plot(epochs, values, marker='.', label=describe_candidate(block))
        axis.set(title=name, ylim=(0, 1))
        axis.legend(fontsize=5, ncols=1 + len(blocks) // 7)
    axis = panels[len(names)]
    axis.plot(epochs, [record['expected_cost'] for record in history], marker='.')
    axis.axhline(1, color='black', linewidth=0.8)
    axis.set(title='expected cost by target', xlabel='epoch')
    for axis in panels[len(names) + 1 :]:
        axis.axis('off')
    figure.savefig(out_file, dpi=100)
