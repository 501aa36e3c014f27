_base_ = '../../../configs/ssdlite/ssdlite_hadaptive-s_bccd.py'

model = dict(backbone=dict(ach_cfg=dict(straight_through='reversed')))
