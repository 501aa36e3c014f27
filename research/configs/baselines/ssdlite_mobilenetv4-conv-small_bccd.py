_base_ = '../../../configs/ssdlite/ssdlite_hadaptive-s_bccd.py'
custom_imports = dict(imports=['mmdet_hadaptive', 'mmpretrain.models'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.TIMMBackbone',
        model_name='mobilenetv4_conv_small',
        features_only=True,
        out_indices=(3, 4),
    ),
    neck=dict(in_channels=(96, 960), out_channels=(96, 960, 512, 256, 256, 128)),
    bbox_head=dict(in_channels=(96, 960, 512, 256, 256, 128)),
)
