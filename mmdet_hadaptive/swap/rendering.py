"""Formats edits as the text of a config."""

import math
from collections.abc import Sequence
from keyword import iskeyword
from reprlib import repr as shorten
from typing import Any

from yapf.yapflib.yapf_api import FormatCode

from ..utils.configs import KeyPath
from .edits import Edit, format_path
from .errors import SwapError

_STYLE = dict(based_on_style='pep8', column_limit=100, dedent_closing_brackets=True)


def render_config(base: str, edits: Sequence[Edit]) -> str:
    """Formats edits as a config file.

    Args:
        base: The value of ``_base_``.
        edits: The changes.

    Returns:
        The formatted text of the file. Equal edits give equal text.

    Raises:
        SwapError: If a value cannot be written as text.
    """
    lines = [f'_base_ = {base!r}']
    lists: dict[KeyPath, str] = {}
    tree: dict[str | int, Any] = {}
    for edit in edits:
        path, comment = edit.path, edit.comment
        value = _render_value(edit.value, edit.path)
        place = next((i for i, key in enumerate(path) if isinstance(key, int)), None)
        if place is not None:
            # A list in a config replaces the inherited list, so the other entries must be repeated.
            name = lists.get(path[:place])
            if name is None:
                name = lists[path[:place]] = '_'.join(map(str, path[1:place]))
                lines += ['', f'{name} = _base_{_render_steps(path[:place])}']
            lines += [*_render_comment(comment)]
            lines.append(f'{name}{_render_steps(path[place:])} = {value}')
            path, value, comment = path[:place], name, ''
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = (value, comment)
    for key, child in tree.items():
        lines.append('')
        if isinstance(child, tuple):
            lines += [*_render_comment(child[1]), f'{key} = {child[0]}']
        else:
            opening, closing = _brackets(child)
            lines += [f'{key} = {opening}', *_render_entries(child), closing]
    return FormatCode('\n'.join(lines) + '\n', style_config=_STYLE)[0]


def _render_entries(node: dict[str | int, Any], depth: int = 1) -> list[str]:
    indent = '    ' * depth
    named = _are_names(node)
    lines = []
    seen = ''
    for key, child in node.items():
        start = f'{indent}{key}=' if named else f'{indent}{key!r}: '
        if isinstance(child, tuple):
            # Consecutive edits with the same reason have one comment.
            lines += _render_comment(child[1] if child[1] != seen else '', indent)
            seen = child[1]
            lines.append(f'{start}{child[0]},')
        else:
            opening, closing = _brackets(child)
            lines += [start + opening, *_render_entries(child, depth + 1), f'{indent}{closing},']
    return lines


def _render_value(value: Any, path: KeyPath) -> str:
    if isinstance(value, dict):
        named = _are_names(value)
        opening, closing = _brackets(value)
        entries = ', '.join(
            (f'{key}=' if named else f'{key!r}: ') + _render_value(child, path)
            for key, child in value.items()
        )
        return opening + entries + closing
    if isinstance(value, (list, tuple)):
        entries = ', '.join(_render_value(child, path) for child in value)
        if isinstance(value, list):
            return f'[{entries}]'
        return f'({entries},)' if len(value) == 1 else f'({entries})'
    if isinstance(value, float) and not math.isfinite(value):
        return f'float({str(value)!r})'
    if type(value) in (str, int, float, bool, type(None)):
        return repr(value)
    raise SwapError(f'{format_path(path)}: {shorten(value)} cannot be written in a config as text')


def _render_steps(path: KeyPath) -> str:
    return ''.join(f'.{key}' if _are_names([key]) else f'[{key!r}]' for key in path)


def _render_comment(text: str, indent: str = '') -> list[str]:
    # A key in the comment may contain a line break.
    return [f'{indent}# {" ".join(text.split())}'] if text else []


def _brackets(node: dict[str | int, Any]) -> tuple[str, str]:
    return ('dict(', ')') if _are_names(node) else ('{', '}')


def _are_names(keys: Any) -> bool:
    """Returns whether all keys can be names of arguments or attributes."""
    return all(isinstance(key, str) and key.isidentifier() and not iskeyword(key) for key in keys)
