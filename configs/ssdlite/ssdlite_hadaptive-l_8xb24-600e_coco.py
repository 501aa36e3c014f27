_base_ = './ssdlite_hadaptive-s_8xb24-600e_coco.py'

model = dict(
    backbone=dict(arch='large', out_indices=(3, 4, 5)),
    # Stage 5 replaces the neck's first extra level.
    neck=dict(
        in_channels=(192, 256, 256),
        out_channels=(192, 256, 256, 256, 256, 128),
        level_strides=(2, 2, 2),
        level_paddings=(1, 1, 1),
    ),
    bbox_head=dict(in_channels=(192, 256, 256, 256, 256, 128)),
)
