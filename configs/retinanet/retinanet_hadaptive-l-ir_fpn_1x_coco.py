# Without products, at the same cost (research/reports/ablation.md).
_base_ = './retinanet_hadaptive-l_fpn_1x_coco.py'

model = dict(backbone=dict(arch='large-ir'))
