# BCCD: 205 training and 87 validation images of blood cells, from scratch on one machine.
_base_ = './ssdlite_hadaptive-s_8xb24-600e_coco.py'

data_root = '{{$HADAPTIVE_DATA:data}}/bccd/'
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'))
num_classes = len(metainfo['classes'])
train_data = dict(
    data_root=data_root,
    metainfo=metainfo,
    ann_file='annotations/instances_train.json',
    data_prefix=dict(img='train/'),
)
val_data = dict(
    data_root=data_root,
    metainfo=metainfo,
    ann_file='annotations/instances_val.json',
    data_prefix=dict(img='val/'),
)

# Half of the images keep their scale. Cells have no upright direction.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='RandomApply',
        transforms=[
            dict(
                type='Expand',
                mean=_base_.data_preprocessor.mean,
                to_rgb=_base_.data_preprocessor.bgr_to_rgb,
                ratio_range=(1, 2),
            )
        ],
        prob=0.5,
    ),
    dict(type='MinIoURandomCrop', min_ious=(0.1, 0.3, 0.5, 0.7, 0.9), min_crop_size=0.3),
    dict(type='Resize', scale=(_base_.input_size, _base_.input_size), keep_ratio=False),
    dict(
        type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']
    ),
    dict(
        type='PhotoMetricDistortion',
        brightness_delta=32,
        contrast_range=(0.5, 1.5),
        saturation_range=(0.5, 1.5),
        hue_delta=18,
    ),
    dict(type='PackDetInputs'),
]

# Anchors, in pixels of the 320 x 320 input: platelets are 22 across, red cells 59, white 109.
model = dict(
    bbox_head=dict(
        num_classes=num_classes,
        anchor_generator=dict(
            min_sizes=[24, 64, 112, 160, 212, 264], max_sizes=[128, 112, 160, 212, 264, 320]
        ),
    ),
    # Cells overlap.
    test_cfg=dict(nms=dict(iou_threshold=0.6)),
)

train_dataloader = dict(
    batch_size=8, num_workers=2, dataset=dict(dataset=dict(pipeline=train_pipeline, **train_data))
)
val_dataloader = dict(dataset=val_data)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + val_data['ann_file'])
test_evaluator = val_evaluator

# From scratch: AdamW, one cosine and averaged weights.
max_epochs = 14
train_cfg = dict(max_epochs=max_epochs, val_interval=2)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=2e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
ema_hook = dict(
    type='EMAHook',
    ema_type='ExpMomentumEMA',
    momentum=0.002,
    update_buffers=True,
    priority='NORMAL',
)
# channels_last makes the training a quarter faster on a CPU.
custom_hooks = [*_base_.custom_hooks, dict(type='ChannelsLastHook'), ema_hook]
default_hooks = dict(
    checkpoint=dict(max_keep_ckpts=2, save_best='coco/bbox_mAP'), logger=dict(interval=20)
)
auto_scale_lr = dict(base_batch_size=8)
randomness = dict(seed=0)
