# The template for your own data: a few hundred images, one machine, pre-trained weights.
# Set data_root, the classes in the order of the annotation file, and the files of annotations.
_base_ = './ssdlite_hadaptive-s_8xb24-600e_coco.py'

data_root = 'data/custom/'
metainfo = dict(classes=('first class', 'second class'))
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

# YOLOXHSVRandomAug stands before the flip: OpenCV cannot write into a flipped view.
train_pipeline = [
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='LoadSSDCrop',
        scale=(_base_.input_size, _base_.input_size),
        mean=_base_.data_preprocessor.mean,
        expand_ratio=(1, 2),
    ),
    dict(type='YOLOXHSVRandomAug'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]

model = dict(
    backbone=dict(
        arch='small-ir',
        # The epsilon of the pre-trained weights.
        norm_cfg=dict(eps=1e-5),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='hadaptive://small-ir_distilled',
            prefix='backbone.',
        ),
    ),
    # Anchor sizes are in pixels of the 320 x 320 input.
    bbox_head=dict(
        num_classes=num_classes,
        anchor_generator=dict(
            min_sizes=[24, 64, 112, 160, 212, 264], max_sizes=[128, 112, 160, 212, 264, 320]
        ),
    ),
)

# MMDetection leaves out images with a side of less than 32 pixels. This config uses them.
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    dataset=dict(dataset=dict(pipeline=train_pipeline, filter_cfg=dict(min_size=1), **train_data)),
)
val_dataloader = dict(dataset=val_data)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + val_data['ann_file'], classwise=True)
test_evaluator = val_evaluator

# AdamW, one cosine and averaged weights.
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
custom_hooks = [
    *_base_.custom_hooks,
    # channels_last makes the training a quarter faster on a CPU.
    dict(type='ChannelsLastHook'),
    ema_hook,
    # Writes curves, a confusion matrix and the worst images to the folder report.
    dict(type='TrainingReportHook'),
]
default_hooks = dict(
    checkpoint=dict(max_keep_ckpts=2, save_best='coco/bbox_mAP'), logger=dict(interval=20)
)
auto_scale_lr = dict(base_batch_size=8)
randomness = dict(seed=0)
