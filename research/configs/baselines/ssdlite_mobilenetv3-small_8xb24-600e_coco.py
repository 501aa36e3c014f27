_base_ = '../../../configs/ssdlite/ssdlite_hadaptive-s_8xb24-600e_coco.py'
custom_imports = dict(imports=['mmdet_hadaptive', 'mmpretrain.models'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.TIMMBackbone',
        model_name='mobilenetv3_small_100',
        features_only=True,
        out_indices=(3, 4),
    ),
    neck=dict(in_channels=(48, 576), out_channels=(48, 576, 512, 256, 256, 128)),
    bbox_head=dict(in_channels=(48, 576, 512, 256, 256, 128)),
)
