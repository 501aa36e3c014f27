"""Checks an annotation file as the data set does."""

from mmdet_hadaptive.datasets.check import check_annotations, read_coco


def check_coco(file, folder, classes, read_images=False, test_mode=False):
    coco, findings = read_coco(file, test_mode)
    return findings or check_annotations(coco, file, folder, classes, read_images, test_mode)
