# The demo: the embedded data set, small enough to learn in minutes on a CPU.
_base_ = './ssdlite_hadaptive-s_bccd.py'

data_root = 'data/shapes/'
metainfo = dict(classes=('disk', 'ring', 'triangle', 'cross'))

input_size = 192
model = dict(
    bbox_head=dict(
        num_classes=4,
        anchor_generator=dict(
            strides=[16, 32, 64, 96, 192, 192],
            min_sizes=[22, 64, 96, 120, 150, 170],
            max_sizes=[90, 96, 120, 150, 170, 192],
        ),
    ),
    test_cfg=dict(nms=dict(iou_threshold=0.5)),
)

load_image = dict(type='LoadImageFromFile', imdecode_backend='pillow')
resize = dict(type='Resize', scale=(input_size, input_size), keep_ratio=False)
train_pipeline = [
    load_image,
    dict(type='LoadAnnotations', with_bbox=True),
    resize,
    dict(
        type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']
    ),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    load_image,
    resize,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    dataset=dict(
        times=1, dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=train_pipeline)
    ),
)
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator

max_epochs = 9
train_cfg = dict(max_epochs=max_epochs, val_interval=3)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(type='StopOnInvalidLossHook'),
    dict(type='EpochSeedHook'),
    dict(type='ChannelsLastHook'),
    dict(_base_.ema_hook, momentum=0.005),
]
optim_wrapper = dict(optimizer=dict(lr=3e-3))
