"""What goes wrong when a detector becomes an ONNX file."""


class ExportError(ValueError):
    """The detector, or what is asked of it, cannot be exported; says what, why and the remedy."""
