"""The names of MMDetection's mAP metrics. Their values are in 0..1."""

PREFIX = 'coco/bbox_'
MAP = f'{PREFIX}mAP'
MAP_50 = f'{PREFIX}mAP_50'
METRICS = (MAP, MAP_50, f'{PREFIX}mAP_75')
