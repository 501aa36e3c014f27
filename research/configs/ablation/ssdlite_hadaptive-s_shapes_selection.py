# The demo, and what its layers select: scalars in vis_data, pictures in work_dirs/.../selection.
_base_ = '../../../configs/ssdlite/ssdlite_hadaptive-s_shapes.py'
custom_imports = dict(
    imports=['mmdet_hadaptive', 'research.analysis.selection_hook'], allow_failed_imports=False
)

custom_hooks = [*_base_.custom_hooks, dict(type='SelectionHook')]
