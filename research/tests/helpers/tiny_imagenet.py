"""Images in the folders in which Tiny ImageNet is distributed."""

import cv2
import numpy as np

NAMES = ['n2', 'n0', 'n1']


def make_tiny_imagenet(folder):
    """Three classes, each of one shade of red; returns the root."""
    root = folder / 'tiny-imagenet-200'
    (root / 'val/images').mkdir(parents=True)
    lines = []
    for name in NAMES:
        images = root / 'train' / name / 'images'
        images.mkdir(parents=True)
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[..., 2] = 80 * int(name[1])
        for i in range(2):
            cv2.imwrite(str(images / f'{name}_{i}.JPEG'), pixels)
        cv2.imwrite(str(root / f'val/images/val_{name}.JPEG'), pixels)
        lines.append(f'val_{name}.JPEG\t{name}\t0\t0\t62\t62')
    (root / 'val/val_annotations.txt').write_text('\n'.join(lines))
    (root / 'wnids.txt').write_text('\n'.join(NAMES) + '\n')
    words = ''.join(f'{name}\tthing {name}, other word\n' for name in ['n9', *NAMES])
    (root / 'words.txt').write_text(words)
    return root
