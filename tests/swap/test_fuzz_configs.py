from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import event, given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from mmdet_hadaptive.swap import (
    SmokeTestError,
    SwapError,
    apply_edits,
    build_for_smoke_test,
    plan_swap,
    render_config,
)

from .fuzz_configs import altered_configs

OUTPUTS = {
    'StrangeTensor': lambda x: x,
    'StrangeTokens': lambda x: (x.flatten(2),),
    'StrangeNothing': lambda x: (),
    'StrangeOrder': lambda x: (x[..., ::16, ::16], x[..., ::8, ::8]),
    'StrangeStrides': lambda x: (x[..., ::3, ::3], x[..., ::7, ::7]),
    'StrangeStack': lambda x: (x[..., ::4, ::4], x[..., ::4, ::4]),
    'StrangeError': lambda x: x.no_such_thing,
}


def make_strange(name, output):
    class Strange(nn.Module):
        def __init__(self, **kwargs):
            super().__init__()

        def forward(self, x):
            return output(x)

    MODELS.register_module(name=name, module=Strange, force=True)


def check_message(refusal):
    assert len(str(refusal).splitlines()) == 1


for strange_name, strange_output in OUTPUTS.items():
    make_strange(strange_name, strange_output)


@settings.get_profile('fuzz')
@given(config=altered_configs(), build=st.integers(0, 19))
def test_an_altered_config_is_refused_in_one_line_or_works(config, build):
    before = repr(config.to_dict())
    try:
        edits = plan_swap(config)
        text = render_config('base.py', edits)
    except SwapError as refusal:
        check_message(refusal)
        event(type(refusal).__name__)
        return
    event('planned')
    assert repr(config.to_dict()) == before
    lines = [f'{key} = {value!r}\n' for key, value in config.to_dict().items()]
    # What repr calls the numbers that are none.
    numbers = "nan, inf = float('nan'), float('inf')\n"
    with TemporaryDirectory() as folder:
        Path(folder, 'base.py').write_text(numbers + ''.join(lines), encoding='utf-8')
        Path(folder, 'out.py').write_text(text, encoding='utf-8')
        found = Config.fromfile(f'{folder}/out.py', import_custom_modules=False).to_dict()
    # MMEngine makes of the text what was planned, and changes nothing else.
    planned = apply_edits(config, edits).to_dict()
    assert {key: repr(found[key]) for key in planned} == {k: repr(v) for k, v in planned.items()}
    assert planned['model'].get('detector', planned['model'])['backbone']['type'] == 'HadaptiveNet'
    if build == 0:
        event('built')
        try:
            assert isinstance(build_for_smoke_test(Config(planned)), nn.Module)
        except SmokeTestError as refusal:
            check_message(refusal)
