"""Errors of other libraries in one line."""


def describe_error(error: BaseException) -> str:
    """Says in one line what an error is.

    Args:
        error: Any error.

    Returns:
        Its type and the first line of its message, at most 200 characters of both.
    """
    lines = f'{type(error).__name__}: {error}'.strip().splitlines()
    return ' '.join(lines[0].split()).removesuffix(':')[:200]
