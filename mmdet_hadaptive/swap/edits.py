"""Changes to a config."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from ..utils.configs import KeyPath, walk


@dataclass(frozen=True)
class Edit:
    """A change of one key in a config.

    Attributes:
        path: The path of the key. Its last element is not an index.
        value: The new value. As in all configs of MMEngine, a dict is merged into the old one
            unless it has ``_delete_=True``.
        comment: The reason.
    """

    path: KeyPath
    value: Any
    comment: str


def format_path(path: KeyPath) -> str:
    """Formats a path for messages, such as 'model.neck.0.in_channels'."""
    return '.'.join(map(str, path))


def get_at(node: Any, path: Sequence[str | int]) -> Any:
    """Looks up a value.

    Args:
        node: A config or a part of it.
        path: The path from the node to the value.

    Returns:
        The value.

    Raises:
        KeyError: If there is no such key.
    """
    for key in path:
        node = node[key]
    return node


def apply_edits(config: Config, edits: Sequence[Edit]) -> Config:
    """Changes a config in memory. The result is the same as from the rendered file.

    Args:
        config: The config. It is not changed.
        edits: The changes.

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
    """Returns whether an ``init_cfg`` (a dict or a list of dicts) reads weights from a file."""
    # Some backbones, such as PVT, accept a checkpoint without a type.
    return any(node.get('checkpoint') for _, node in walk(init_cfg))
