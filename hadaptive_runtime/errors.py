"""The errors of exported detectors."""

# Libraries say at the beginning of a message what happened, and at its end what to do.
_BEGINNING, _END = 300, 200


class ExportError(ValueError):
    """A detector cannot be exported, or an exported one cannot be used. It names the remedy."""


def describe_error(error: BaseException) -> str:
    """Describes an error of a library in one line.

    Args:
        error: Any error.

    Returns:
        Its type and its message; a long message is shortened in its middle.
    """
    text = ' '.join(f'{type(error).__name__}: {error}'.split()).removesuffix(':')
    if len(text) <= _BEGINNING + _END:
        return text
    return f'{text[:_BEGINNING]} ... {text[-_END:]}'
