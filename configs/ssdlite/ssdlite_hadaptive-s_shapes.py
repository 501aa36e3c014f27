# The demo: the embedded data set, small enough to learn in minutes on a CPU.
_base_ = './ssdlite_hadaptive-s_bccd.py'

data_root = 'data/shapes/'
metainfo = dict(classes=('disk', 'ring', 'square', 'triangle', 'cross', 'star'))

input_size = 256
model = dict(
    bbox_head=dict(
        num_classes=6,
        anchor_generator=dict(
            strides=[16, 32, 64, 86, 128, 256],
            min_sizes=[24, 64, 112, 160, 200, 230],
            max_sizes=[80, 112, 160, 200, 230, 256],
        ),
    )
)

load_image = dict(type='LoadImageFromFile', imdecode_backend='pillow')
resize = dict(type='Resize', scale=(input_size, input_size), keep_ratio=False)
train_pipeline = [
    load_image,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='MinIoURandomCrop', min_ious=(0.5, 0.7, 0.9), min_crop_size=0.6),
    resize,
    dict(type='RandomFlip', prob=[0.3, 0.3], direction=['horizontal', 'vertical']),
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
    batch_size=16,
    dataset=dict(
        times=1, dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=train_pipeline)
    ),
)
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator

max_epochs = 8
train_cfg = dict(max_epochs=max_epochs, val_interval=2)
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
auto_scale_lr = dict(base_batch_size=16)
