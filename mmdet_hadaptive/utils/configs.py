"""Finds things in configs."""

from collections.abc import Iterator
from typing import Any

# The path of a value: keys, and indices into lists.
KeyPath = tuple[str | int, ...]


def walk(node: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """Finds all dictionaries in a node at any depth, the node itself first.

    The caller may change a dictionary before it asks for the next one. Then the changed content is
    searched.

    Args:
        node: A part of a config. Other types than dictionaries, lists and tuples contain nothing.
        path: The path of the node.

    Yields:
        The path of each dictionary, and the dictionary.
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
        The pipeline of each of its data sets, also in wrappers such as ConcatDataset.
    """
    return [node['pipeline'] for _, node in walk(loader['dataset']) if 'pipeline' in node]


def type_name(kind: Any) -> str:
    """Returns a class's name in registries.

    Args:
        kind: The ``type`` of a part of a config: a name in a registry, a class, or the path of a
            class, as in 'mmdet.models.RetinaNet'.

    Returns:
        The name, without scope and path.
    """
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def coco_datasets(dataset: dict[str, Any]) -> list[dict[str, Any]]:
    """Finds the data sets with an annotation file, also in wrappers such as RepeatDataset.

    Args:
        dataset: The data set of a data loader.

    Returns:
        The data set itself, or those in it. Empty if there is no annotation file.
    """
    return [node for _, node in walk(dataset) if 'ann_file' in node]
