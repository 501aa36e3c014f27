"""Packs the weights of a checkpoint in half precision: a detector's, or a classifier's backbone."""

import argparse
import io
import subprocess
from pathlib import Path

import torch
from mmengine.config import Config

from mmdet_hadaptive import __version__
from mmdet_hadaptive.utils.files import write_whole
from mmdet_hadaptive.utils.safe_loading import load_checkpoint
from research.packing import pack_weights

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Writes OUT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=Path, help='config with which the checkpoint was trained')
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('out', type=Path, help='the file to write')
    args = parser.parse_args()
    config = Config.fromfile(args.config)
    checkpoint = load_checkpoint(args.checkpoint)
    state = checkpoint['state_dict']
    if config.default_scope == 'mmpretrain':
        state = {key: state[key] for key in state if key.startswith('backbone.')}
    commit = subprocess.check_output(['git', 'rev-parse', 'HEAD'], cwd=ROOT, text=True).strip()
    meta = dict(
        config=args.config.name,
        arch=config.model.backbone.arch,
        epoch=checkpoint['meta']['epoch'],
        dataset_meta=dict(classes=tuple(checkpoint['meta']['dataset_meta']['classes'])),
        version=__version__,
        commit=commit,
    )
    content = io.BytesIO()
    torch.save(pack_weights(state, meta), content)
    write_whole(content.getvalue(), args.out)
    print(f'written: {args.out} ({len(content.getvalue()) / 2**20:.2f} MiB)')


if __name__ == '__main__':
    main()
