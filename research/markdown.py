"""Tables in Markdown."""

from collections.abc import Iterable


def markdown_table(headings: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Writes a table.

    Args:
        headings: A heading for each column.
        rows: For each row its cells, as many as there are headings.

    Returns:
        The lines of the table, without a line break at the end.

    Raises:
        ValueError: If a row has another number of cells than there are headings.
    """
    first, *others = [[str(cell).replace('|', '\\|') for cell in row] for row in (headings, *rows)]
    for row in others:
        if len(row) != len(first):
            raise ValueError(f'a row must have {len(first)} cells, one a heading; got {row}')
    lines = [f'| {" | ".join(row)} |' for row in (first, *others)]
    return '\n'.join([lines[0], '|---' * len(first) + '|', *lines[1:]])
