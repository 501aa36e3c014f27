# Searches an architecture on BCCD; work_dirs/.../search/architecture.py trains it.
_base_ = './_base_/ssdlite_hadaptive-s_5e_bccd.py'
custom_imports = dict(imports=['mmdet_hadaptive', 'research.search'], allow_failed_imports=False)

model = dict(backbone=dict(type='HadaptiveSearchNet', arch='small'))
# Half of the images each, for weights and architecture: 1,512 steps.
max_epochs = 24
train_cfg = dict(type='ArchitectureSearchLoop', max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=max_epochs, T_max=max_epochs)
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='ArchitectureSearchHook',
        # What the backbone of Hadaptive-Net-S has at this size of input.
        target=dict(macs=0.252e9),
        # In 1,512 steps the authors' 3e-4 would move nothing: it is for their tens of thousands.
        lr=1e-2,
        # The straight-through gradient is next to none where an output is normalised next.
        estimator='score-function',
    ),
]
# Candidates that are not drawn have no gradient, of which wrappers for several processes ask.
find_unused_parameters = True
