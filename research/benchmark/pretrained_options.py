"""Configs that start from a pre-trained classifier."""

from mmengine.config import Config


def pretrained_options(config: Config, checkpoint: str) -> list[str]:
    """Overrides by which a detector's backbone starts from a pre-trained classifier.

    Args:
        config: The config of the detector.
        checkpoint: A checkpoint with the backbone under the prefix ``backbone.``, as MMPretrain
            and ``tools/convert_checkpoint.py --with-head`` write it. Backbones of timm get timm's
            own weights instead.

    Returns:
        Overrides, 'key=value'.
    """
    backbone = config.model.backbone
    if backbone.type == 'mmpretrain.TIMMBackbone':
        return ['model.backbone.pretrained=True']
    values = {}
    if backbone.get('init_cfg'):
        # It would leave its own arguments.
        values['init_cfg._delete_'] = 'True'
    values |= {
        'init_cfg.type': 'Pretrained',
        'init_cfg.checkpoint': checkpoint,
        'init_cfg.prefix': 'backbone.',
    }
    if 'eps' in backbone.get('norm_cfg', {}):
        # The classifiers have torch's.
        values['norm_cfg.eps'] = '1e-5'
    return [f'model.backbone.{key}={value}' for key, value in values.items()]
