_base_ = './retinanet_hadaptive-s_fpn_1x_coco.py'

model = dict(backbone=dict(arch='medium'), neck=dict(in_channels=[80, 128, 192]))
