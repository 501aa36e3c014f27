"""What goes wrong with exported detectors."""

# Libraries put what happened at the beginning of a message, and what to do at its end.
_BEGINNING, _END = 300, 200


class ExportError(ValueError):
    """A detector cannot be exported, or an exported one not be used; says why and the remedy."""


def describe_error(error: BaseException) -> str:
    """Says in one line what an error of a library is.

    Args:
        error: Any error.

    Returns:
        Its type and its message; a long message is shortened in its middle.
    """
    text = ' '.join(f'{type(error).__name__}: {error}'.split()).removesuffix(':')
    if len(text) <= _BEGINNING + _END:
        return text
    return f'{text[:_BEGINNING]} ... {text[-_END:]}'
