"""Words after --cfg-options that make a training short; words that follow replace them."""

SHORT_TRAINING = (
    'train_cfg.max_epochs=1',
    'train_dataloader.batch_size=4',
    'default_hooks.logger.interval=1',
    *(f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')),
    *(f'{split}_dataloader.persistent_workers=False' for split in ('val', 'test')),
)
