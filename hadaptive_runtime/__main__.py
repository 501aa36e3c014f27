"""Detects objects, see :mod:`hadaptive_runtime.predict`."""

from .predict import main

main()
