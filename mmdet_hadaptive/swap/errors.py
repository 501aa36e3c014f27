"""What the swap raises, one line each."""


class SwapError(ValueError):
    """The backbone of a config cannot be replaced; the message, one line, says where and why."""

    def __init__(self, message: str) -> None:
        # Configs are written by others: a name in them may contain a line break.
        super().__init__(' '.join(message.split()))


class SmokeTestError(SwapError):
    """A detector cannot be built, does not learn or does not predict; the message says why."""


def describe_error(error: BaseException) -> str:
    """Says in one line what an error is.

    Args:
        error: Any error.

    Returns:
        Its type and the first line of its message, at most 200 characters of both.
    """
    lines = f'{type(error).__name__}: {error}'.strip().splitlines()
    return ' '.join(lines[0].split()).removesuffix(':')[:200]
