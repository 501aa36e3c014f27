_base_ = 'mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py'
custom_imports = dict(imports=['mmdet_hadaptive'], allow_failed_imports=False)

# Unlike OpenCV, Pillow refuses truncated images instead of filling them with grey.
mmdet_pipeline = _base_.train_pipeline
mmdet_pipeline[0].imdecode_backend = 'pillow'
test_pipeline = _base_.test_pipeline
test_pipeline[0].imdecode_backend = 'pillow'

# The crops and pixels of MMDetection's transforms in a fraction of their time. A config that sets
# train_dataloader = dict(dataset=dict(dataset=dict(pipeline=_base_.mmdet_pipeline))) has its own.
train_pipeline = [
    mmdet_pipeline[1],
    dict(
        type='LoadSSDCrop',
        scale=(_base_.input_size, _base_.input_size),
        mean=_base_.data_preprocessor.mean,
    ),
    *mmdet_pipeline[5:],
]

norm_cfg = dict(type='BN', eps=0.001, momentum=0.03)
model = dict(
    # The last two inverted residuals, which expand 160 channels to 960 by convolution, choose 32
    # channels and expand to 656 by their products.
    backbone=dict(
        _delete_=True,
        type='WithAdaptiveBottlenecks',
        backbone=dict(type='MobileNetV2', out_indices=(4, 7), norm_cfg=norm_cfg),
        blocks={
            'layer6.2': dict(num_selected=32, norm_cfg=norm_cfg),
            'layer7.0': dict(num_selected=32, norm_cfg=norm_cfg),
        },
    ),
    bbox_head=dict(type='SSDLiteHead'),
)

# A run that was killed, at whatever moment, resumes with --resume as if it had not been.
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook'))
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(type='StopOnInvalidLossHook'),
    dict(type='EpochSeedHook'),
]

# The last maps are 1 x 1: batch normalisation cannot train on a last batch of one image.
train_dataloader = dict(
    drop_last=True,
    persistent_workers=False,
    dataset=dict(dataset=dict(type='CheckedCocoDataset', pipeline=train_pipeline)),
)
val_dataloader = dict(dataset=dict(type='CheckedCocoDataset', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='FastCocoMetric')
test_evaluator = val_evaluator
