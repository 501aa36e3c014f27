# Searches an architecture by a classifier's loss, as the authors do: 64 x 64 pixels.
_base_ = '../pretrain/hadaptive-s_1xb128-15e_tiny-imagenet.py'
custom_imports = dict(
    imports=['mmdet_hadaptive', 'research.search', 'research.tiny_imagenet'],
    allow_failed_imports=False,
)

model = dict(backbone=dict(type='mmdet.HadaptiveSearchNet', arch='small'))
# Half of the images each, for weights and architecture: 2,343 steps.
max_epochs = 3
train_dataloader = dict(batch_size=64)
train_cfg = dict(
    _delete_=True,
    type='mmdet.ArchitectureSearchLoop',
    max_epochs=max_epochs,
    val_interval=max_epochs,
)
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 200
param_scheduler[1].update(end=max_epochs, T_max=max_epochs)
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmdet.ArchitectureSearchHook',
        # What the backbone of Hadaptive-Net-S has at this size of input.
        target=dict(macs=10.59e6),
        lr=1e-2,
        # The straight-through gradient is next to none where an output is normalised next.
        estimator='score-function',
    ),
]
auto_scale_lr = dict(base_batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
# Candidates that are not drawn have no gradient, of which wrappers for several processes ask.
find_unused_parameters = True
