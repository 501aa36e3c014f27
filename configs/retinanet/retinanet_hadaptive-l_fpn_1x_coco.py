_base_ = './retinanet_hadaptive-s_fpn_1x_coco.py'

model = dict(backbone=dict(arch='large'), neck=dict(in_channels=[96, 192, 256]))
