"""Reads the reference values that lie beside the real images."""
