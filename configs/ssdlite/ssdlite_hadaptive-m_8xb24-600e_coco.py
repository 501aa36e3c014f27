_base_ = './ssdlite_hadaptive-s_8xb24-600e_coco.py'

model = dict(
    backbone=dict(arch='medium'),
    neck=dict(in_channels=(128, 192), out_channels=(128, 192, 512, 256, 256, 128)),
    bbox_head=dict(in_channels=(128, 192, 512, 256, 256, 128)),
)
