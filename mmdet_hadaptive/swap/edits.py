"""Changes to a config."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from ..utils.configs import KeyPath, walk


@dataclass(frozen=True)
class Edit:
    """One key that a config changes.

    Attributes:
        path: The keys that lead to it; the last is no index.
        value: The new value; as in every config of MMEngine, a dict is merged into the old one
            unless it has ``_delete_=True``.
        comment: Why.
    """

    path: KeyPath
    value: Any
    comment: str


def format_path(path: KeyPath) -> str:
    """Names a key in a message, as in 'model.neck.0.in_channels'."""
    return '.'.join(map(str, path))


def get_at(node: Any, path: Sequence[str | int]) -> Any:
    """Looks up a value.

    Args:
        node: A config or a part of it.
        path: The keys that lead from there to the value.

    Returns:
        The value.

    Raises:
        KeyError: If there is no such key.
    """
    for key in path:
        node = node[key]
    return node


def apply_edits(config: Config, edits: Sequence[Edit]) -> Config:
    """Changes a config in memory, with the same result as the rendered file.

    Args:
        config: The config; it stays as it is.
        edits: What changes.

    Returns:
        The changed copy.
    """
    changed = copy.deepcopy(config)
    for edit in edits:
        parent: Any = changed
        for key in edit.path[:-1]:
            if isinstance(key, str) and parent.get(key) is None:
                parent[key] = {}
            parent = parent[key]
        value = copy.deepcopy(edit.value)
        if isinstance(value, dict):
            old = parent.get(edit.path[-1])
            merged = not value.pop('_delete_', False) and isinstance(old, dict)
            value = {**old, **value} if merged else value
        parent[edit.path[-1]] = value
    return changed


def loads_weights(init_cfg: Any) -> bool:
    """Whether an ``init_cfg``, a dict or a list of dicts, reads weights from a file."""
    # Some backbones, such as PVT, take a checkpoint without a type.
    return any(node.get('checkpoint') for _, node in walk(init_cfg))
