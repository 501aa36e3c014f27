"""The names that MMDetection gives to COCO's scores of boxes, all in 0..1."""

MAP = 'coco/bbox_mAP'
MAP_50 = 'coco/bbox_mAP_50'
MAP_75 = 'coco/bbox_mAP_75'
METRICS = (MAP, MAP_50, MAP_75)
