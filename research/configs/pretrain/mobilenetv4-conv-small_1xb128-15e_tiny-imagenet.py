_base_ = './ghostnet_1xb128-15e_tiny-imagenet.py'

model = dict(model_name='mobilenetv4_conv_small')
