"""Finds things in configs."""

from collections.abc import Iterator
from typing import Any

# The keys that lead to a value; a number is an index into a list.
KeyPath = tuple[str | int, ...]


def walk(node: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """Finds all dictionaries below a node, however deep, the node itself first.

    A dictionary that is found may be changed before the next one is asked for; what it holds then
    is walked through.

    Args:
        node: A part of a config; in what is no dictionary, list or tuple there is nothing.
        path: The keys that lead to the node; a number is a place in a list.

    Yields:
        For each dictionary the keys that lead to it, and the dictionary.
    """
    children: list[tuple[str | int, Any]] = []
    if isinstance(node, dict):
        yield path, node
        children = list(node.items())
    elif isinstance(node, (list, tuple)):
        children = list(enumerate(node))
    for key, child in children:
        yield from walk(child, (*path, key))


def find_pipelines(loader: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Finds the pipelines of a data loader.

    Args:
        loader: The config of the data loader.

    Returns:
        The pipeline of each of its data sets, also below wrappers such as ConcatDataset.
    """
    return [node['pipeline'] for _, node in walk(loader['dataset']) if 'pipeline' in node]


def type_name(kind: Any) -> str:
    """Names a class as registries do.

    Args:
        kind: The ``type`` of a part of a config: a name in a registry, a class, or the path of a
            class, as in 'mmdet.models.RetinaNet'.

    Returns:
        The name without scope and path.
    """
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def coco_datasets(dataset: dict[str, Any]) -> list[dict[str, Any]]:
    """Finds the data sets with an annotation file below wrappers such as RepeatDataset.

    Args:
        dataset: The data set of a data loader.

    Returns:
        The dataset itself, or those that it wraps; none if no annotation file is named.
    """
    return [node for _, node in walk(dataset) if 'ann_file' in node]
