"""Maintainers' apparatus: measures costs, speed, accuracy and swaps, and writes the pages."""
