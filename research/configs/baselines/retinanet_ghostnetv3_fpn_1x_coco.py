_base_ = '../../../configs/retinanet/retinanet_hadaptive-s_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_hadaptive', 'mmpretrain.models'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.TIMMBackbone',
        model_name='ghostnetv3_100',
        features_only=True,
        out_indices=(2, 3, 4),
    ),
    neck=dict(in_channels=[40, 80, 160]),
)
