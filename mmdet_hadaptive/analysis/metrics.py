"""The names that MMDetection gives to COCO's scores of boxes, all in 0..1."""

PREFIX = 'coco/bbox_'
MAP = f'{PREFIX}mAP'
MAP_50 = f'{PREFIX}mAP_50'
MAP_75 = f'{PREFIX}mAP_75'
METRICS = (MAP, MAP_50, MAP_75)
