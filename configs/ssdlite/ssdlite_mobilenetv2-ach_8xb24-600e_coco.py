_base_ = './ssdlite_hadaptive-s_8xb24-600e_coco.py'

channels = (96, 1280, 512, 256, 256, 128)
norm_cfg = dict(type='BN', eps=0.001, momentum=0.03)
model = dict(
    # ACH replaces the last two inverted residuals. These expand 160 channels to 960 by convolution.
    # ACH selects 32 channels, and expands to 656 by their products.
    backbone=dict(
        _delete_=True,
        type='BackboneWithACH',
        backbone=dict(type='MobileNetV2', out_indices=(4, 7), norm_cfg=norm_cfg),
        blocks={
            'layer6.2': dict(num_selected=32, norm_cfg=norm_cfg),
            'layer7.0': dict(num_selected=32, norm_cfg=norm_cfg),
        },
    ),
    neck=dict(in_channels=channels[:2], out_channels=channels),
    bbox_head=dict(in_channels=channels),
)
