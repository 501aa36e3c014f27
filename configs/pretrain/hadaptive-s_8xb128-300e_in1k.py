# AdamW, cosine and averaged weights. Light networks underfit ImageNet sooner than they overfit it:
# AutoAugment, random erasing and label smoothing, but neither Mixup nor CutMix.
_base_ = [
    './_base_/hadaptive-s.py',
    'mmpretrain::_base_/datasets/imagenet_bs128_mbv3.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
]

model = dict(
    head=dict(loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1), topk=(1, 5))
)
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
custom_hooks = [
    *_base_.custom_hooks,
    # An average over about eight epochs. Checkpoints hold it as their weights.
    dict(type='EMAHook', momentum=1e-4, update_buffers=True, priority='ABOVE_NORMAL'),
]

train_dataloader = dict(
    pin_memory=True, persistent_workers=False, collate_fn=dict(type='default_collate')
)
val_dataloader = dict(pin_memory=True, collate_fn=dict(type='default_collate'))
test_dataloader = val_dataloader

# (8 GPUs) x (128 samples per GPU)
auto_scale_lr = dict(enable=False)
