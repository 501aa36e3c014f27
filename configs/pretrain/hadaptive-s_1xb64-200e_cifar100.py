# The recipe of the authors' release. The image size is that of the costs in the paper. We do not
# know whether the authors trained with this size and this augmentation.
_base_ = ['./_base_/hadaptive-s.py', 'mmpretrain::_base_/datasets/cifar100_bs16.py']

model = dict(head=dict(num_classes=100))

resize = dict(type='Resize', scale=(224, 224))
train_pipeline = [*_base_.train_pipeline[:-1], resize, dict(type='PackInputs')]
test_pipeline = [resize, dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=64,
    pin_memory=True,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=64,
    pin_memory=True,
    collate_fn=dict(type='default_collate'),
    dataset=dict(pipeline=test_pipeline),
)
test_dataloader = val_dataloader

max_epochs = 200
warmup_epochs = 10
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.01,
        by_epoch=True,
        end=warmup_epochs,
        convert_to_iter_based=True,
    ),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=warmup_epochs),
]

auto_scale_lr = dict(base_batch_size=64, enable=False)
