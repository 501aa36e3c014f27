"""The names of scores: MMDetection's of boxes, in 0..1, and MMPretrain's, in percent."""

PREFIX = 'coco/bbox_'
MAP = f'{PREFIX}mAP'
MAP_50 = f'{PREFIX}mAP_50'
MAP_75 = f'{PREFIX}mAP_75'
METRICS = (MAP, MAP_50, MAP_75)

TOP_1 = 'accuracy/top1'
TOP_5 = 'accuracy/top5'
