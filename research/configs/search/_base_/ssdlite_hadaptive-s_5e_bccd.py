# What networks are compared by: a third of the recipe, its augmentation in a seventh of the time.
_base_ = '../../../../configs/ssdlite/ssdlite_hadaptive-s_bccd.py'

train_dataloader = dict(num_workers=1, dataset=dict(dataset=dict(pipeline=_base_.fast_pipeline)))

max_epochs = 5
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=max_epochs, T_max=max_epochs)
# Averages over the same part of the training.
custom_hooks = _base_.custom_hooks
custom_hooks[-1].momentum = 0.0056
