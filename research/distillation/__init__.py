"""Weights for Hadaptive-Net by distillation from EfficientNet-Lite0 (README.md)."""
