"""Programs of the laboratory: python -m research.tools.NAME, from the root of a clone."""
