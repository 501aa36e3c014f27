"""Writes README.md and metafile.yml of every folder of configs, and model-index.yml."""

from pathlib import Path

import mmdet_hadaptive  # noqa: F401
from research.benchmark.model_pages import render_index, render_pages

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def main() -> None:
    """Writes all pages; what is written by hand in them stays."""
    for folder in sorted({path.parent for path in CONFIGS.glob('*/*.py')}):
        for path, text in render_pages(folder).items():
            path.write_text(text)
        print(folder.name)
    (CONFIGS.parent / 'model-index.yml').write_text(render_index(CONFIGS))


if __name__ == '__main__':
    main()
