"""Whether torch.compile is tracing."""

import torch

try:
    is_compiling = torch.compiler.is_compiling
except AttributeError:  # before torch 2.3
    from torch._dynamo.external_utils import is_compiling

__all__ = ['is_compiling']
