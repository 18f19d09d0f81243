"""Bad input of the memory account and the FLOPs: refused in one clear line."""

import pytest

from research.models import preset
from research.scaling import capacity, memory
from research.scaling.memory import Setting
from tools.memory import model_of, pairs, recipe_of

TINY = preset("gpt2").replace(vocab_size=50, d_model=16, n_layers=1, n_heads=2, d_ff=32, max_length=16)


def told(**changes):
    return memory.training(Setting(TINY, **{"rows": 2, "length": 8} | changes))


CASES = {
    "unknown card": (lambda: capacity.card_bytes("h1000"), r"unknown card 'h1000', did you mean 'h100'\?; have \['t4'"),
    "a share above the whole": (lambda: capacity.card_bytes("h100", 1.5), "at most 1; given 1.5"),
    "zero batch": (lambda: told(rows=0), "a batch has at least 1 row; given 0"),
    "longer than the model": (lambda: told(length=17), "length 17 does not fit the model: expected 1 to 16"),
    "an empty sequence": (lambda: told(length=0), "length 0 does not fit the model"),
    "micro-batches that rows do not fill": (
        lambda: told(accumulate=3),
        "2 rows, which do not split into 3 micro-batches",
    ),
    "devices that rows do not fill": (lambda: told(mesh={"data": 4}), "data x fsdp = 4 x 1 devices"),
    "an unknown mesh axis": (lambda: told(mesh={"model": 2}), r"unknown mesh axes \['model'\]; have \['data'"),
    "heads that the mesh cuts": (lambda: told(mesh={"tensor": 4}), "2 heads, which mesh axis 'tensor' of size 4"),
    "an unknown method": (lambda: told(recipe={"method": "lorra"}), "'lorra', did you mean 'lora'"),
    "an unknown optimizer": (lambda: told(optimizer={"name": "adamx"}), "unknown optimizer 'adamx'"),
    "an unknown policy": (lambda: told(policy="f8"), "unknown precision policy 'f8'"),
    "an encoder that decodes": (
        lambda: memory.decoding(Setting(preset("bert-base"), 1, 8)),
        "an encoder has no cache",
    ),
    "a mesh that decodes": (
        lambda: memory.decoding(Setting(TINY, 2, 8, mesh={"data": 2})),
        "generation runs on one device; given the mesh {'data': 2}",
    ),
    "an unknown preset": (lambda: model_of("lama-7b"), "unknown preset 'lama-7b', did you mean 'llama-7b'"),
    "a model without its width": (lambda: model_of("vocab_size=10,n_layers=2"), "incomplete: .*d_model"),
    "an unknown field": (lambda: model_of("d_modle=10"), "unknown model field 'd_modle', did you mean 'd_model'"),
    "a mesh without sizes": (lambda: pairs("fsdp"), "expected name=value, ...; given 'fsdp'"),
    "an unknown method of a joined one": (lambda: told(recipe=recipe_of("nf5+lora", 4)), "'nf5', did you mean 'nf4'"),
}


@pytest.mark.parametrize("case", CASES, ids=lambda name: name.replace(" ", "-"))
def test_bad_input_is_refused_with_its_reason(case):
    call, message = CASES[case]
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert len(str(caught.value)) > 20
