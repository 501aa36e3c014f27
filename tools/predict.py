"""Detects objects in images and videos with a file of tools/export.py."""

from hadaptive_runtime.__main__ import main

if __name__ == '__main__':
    main()
