"""What goes wrong with exported detectors."""


class ExportError(ValueError):
    """A detector cannot be exported, or an exported one not be used; says why and the remedy."""


def first_line(error: BaseException) -> str:
    """Says in one line what an error of a runtime is: at most 200 characters of its first line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return ' '.join(lines[0].split())[:200]
