_base_ = '../../../configs/ssdlite/ssdlite_hadaptive-s_shapes.py'

model = dict(backbone=dict(ach_cfg=dict(adapt_temperature=False)))
