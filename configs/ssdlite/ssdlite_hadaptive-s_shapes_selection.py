# The demo, and what its layers select: scalars in vis_data, pictures in work_dirs/.../selection.
_base_ = './ssdlite_hadaptive-s_shapes.py'

custom_hooks = [*_base_.custom_hooks, dict(type='SelectionHook')]
