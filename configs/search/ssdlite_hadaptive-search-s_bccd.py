# Searches an architecture on BCCD; work_dirs/.../search/architecture.py trains it.
_base_ = '../ssdlite/ssdlite_hadaptive-s_bccd.py'

model = dict(backbone=dict(type='HadaptiveSearchNet', arch='small'))
train_cfg = dict(type='ArchitectureSearchLoop')
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='ArchitectureSearchHook',
        # What the backbone of Hadaptive-Net-S has at this size of input.
        target=dict(macs=0.252e9),
        # In 900 steps the authors' 3e-4 would move nothing: it is for their tens of thousands.
        lr=1e-2,
    ),
]
# Candidates that are not drawn have no gradient, of which wrappers for several processes ask.
find_unused_parameters = True
