"""A detector of everyday things, from the boxes of another detector (README.md)."""
