"""Runs MMDetection's own tools/test.py."""

from mmdet_hadaptive.utils.mmdet_tools import run_mmdet_tool

if __name__ == '__main__':
    run_mmdet_tool('test.py')
