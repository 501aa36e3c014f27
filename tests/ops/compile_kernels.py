"""Compiles Triton's kernels for GPUs that need not be here."""

from itertools import product

from triton import compile, language
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mmdet_hadaptive.ops import expansion_triton

# The kernels, and their tiles for maps that are contiguous and for those in channels_last.
KERNELS = {
    expansion_triton.expand_kernel: (dict(ROWS=16, COLUMNS=128), dict(ROWS=128, COLUMNS=16)),
    expansion_triton.expand_backward_kernel: (
        dict(ROWS=16, COLUMNS=128, AXIS=0),
        dict(ROWS=32, COLUMNS=64, AXIS=1),
    ),
}
MAPS = ('y', 'grad', 'grad_u')
PARAMETERS = ('scale', 'alpha', 'weight', 'bias', 'grad_selected', 'grad_weight', 'grad_bias')


def source(kernel, dtype, channels_last):
    """The kernel with types for its arguments, and with a stride of 1 where Triton would see it."""
    compute_dtype = 'fp64' if dtype == 'fp64' else 'fp32'
    constants = dict(
        KERNELS[kernel][channels_last],
        COMPUTE_DTYPE=language.float64 if dtype == 'fp64' else language.float32,
    )
    dense = '_channel' if channels_last else '_position'
    types = {}
    for name in kernel.arg_names:
        if name.endswith(dense):
            constants[name] = 1
        if name in constants:
            types[name] = 'constexpr'
        elif name in MAPS:
            types[name] = f'*{dtype}'
        elif name in PARAMETERS:
            types[name] = f'*{compute_dtype}'
        else:
            types[name] = '*i64' if name == 'indices' else 'i32'
    return ASTSource(fn=kernel, signature=types, constexprs=constants)


def main():
    for capability, kernel, dtype, channels_last in product(
        (75, 90), KERNELS, ('fp32', 'fp16', 'bf16', 'fp64'), (False, True)
    ):
        target = GPUTarget('cuda', capability, 32)
        assert compile(source(kernel, dtype, channels_last), target=target).asm['cubin']
        print('compiled', kernel.__name__, capability, dtype, channels_last)


if __name__ == '__main__':
    main()
