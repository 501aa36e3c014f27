"""Finds things in configs."""

from collections.abc import Iterator
from typing import Any


def walk(
    node: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """Finds all dictionaries below a node, however deep, the node itself first.

    A dictionary that is found may be changed before the next one is asked for; what it holds then
    is walked through.

    Args:
        node: A dictionary, list or tuple of a config.
        path: The keys that lead to the node; a number is a place in a list.

    Yields:
        For each dictionary the keys that lead to it, and the dictionary.
    """
    if isinstance(node, dict):
        yield path, node
    children = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in list(children):
        if isinstance(child, (dict, list, tuple)):
            yield from walk(child, (*path, key))


def coco_datasets(dataset: dict[str, Any]) -> list[dict[str, Any]]:
    """Finds the data sets with an annotation file below wrappers such as RepeatDataset.

    Args:
        dataset: The data set of a data loader.

    Returns:
        The dataset itself, or those that it wraps; none if no annotation file is named.
    """
    return [node for _, node in walk(dataset) if 'ann_file' in node]
