"""Compiles Triton's kernels for GPUs that need not be here, and fails if registers overflow."""

from itertools import product

from triton import compile, language
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mmdet_hadaptive.ops import expansion_triton

KERNELS = (expansion_triton._expand_kernel, expansion_triton._expand_backward_kernel)
MAPS = ('y', 'grad', 'grad_u')
PARAMETERS = ('scale', 'alpha', 'weight', 'bias', 'of_selected', 'of_weight', 'of_bias')
CONSTANTS = dict(WIDE=language.float32, ROWS=16, COLUMNS=128)


def signature(kernel, dtype, dense):
    """Types of the arguments; the stride that ``dense`` names is 1, as Triton will see it."""
    types = {}
    for name in kernel.arg_names:
        if name in MAPS:
            types[name] = f'*{dtype}'
        elif name in PARAMETERS:
            types[name] = '*fp32'
        elif name == 'indices':
            types[name] = '*i64'
        elif name in CONSTANTS or name.endswith(dense):
            types[name] = 'constexpr'
        else:
            types[name] = 'i32'
    return types


def main():
    for capability, kernel, dtype, dense in product(
        (75, 90), KERNELS, ('fp32', 'fp16', 'bf16'), ('_position', '_channel')
    ):
        types = signature(kernel, dtype, dense)
        constants = {name: CONSTANTS.get(name, 1) for name in types if types[name] == 'constexpr'}
        source = ASTSource(fn=kernel, signature=types, constexprs=constants)
        compiled = compile(source, target=GPUTarget('cuda', capability, 32))
        assert compiled.asm['cubin']
        print('compiled', kernel.__name__, capability, dtype, dense)


if __name__ == '__main__':
    main()
