"""The memory account against what XLA's compiler says, over families, methods, optimizers, precisions and meshes."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from research.core import mesh as meshes
from research.models import preset
from research.recipes.assemble import heads
from research.report import print_table
from research.scaling import capacity, live, memory
from research.scaling.memory import Setting
from research.training import state as states

# XLA decides on buffers before it makes code, so the code may be bad: that saves half of the compile time.
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
SMALL = {"n_layers": 6, "d_model": 64, "n_heads": 4, "d_ff": 192, "vocab_size": 512, "head_dim": 16}
LORA, QLORA = {"method": "lora", "rank": 4}, [{"method": "nf4"}, {"method": "lora", "rank": 4}]
# Weights outweigh activations: what the optimizer does counts.
HEAVY = {"rows": 1, "length": 16, "d_model": 256, "d_ff": 1024}


def setting(name: str, rows: int = 8, length: int = 64, **given) -> Setting:
    """A small model of the family, and what else differs."""
    base = preset(name)
    kv = {"n_kv_heads": 2} if 1 < base.n_kv_heads < base.n_heads else {}
    rates = dict.fromkeys(("embed_dropout", "attention_dropout", "residual_dropout"), 0.0)
    fields = {
        key: given.pop(key) for key in ("d_model", "d_ff", "n_layers", "vocab_size", "head", "n_labels") if key in given
    }
    config = base.replace(**SMALL | kv | rates | {"max_length": 256} | fields)
    return Setting(config, rows, length, **given)


SETTINGS = {
    "decoder: gpt2": setting("gpt2"),
    "decoder: gpt2, bf16": setting("gpt2", policy="bf16"),
    "decoder: gpt2, 16 bytes/parameter": setting("gpt2", **HEAVY),
    "decoder: gpt2, soft prompt": setting("gpt2", recipe={"method": "prompt", "length": 8}),
    "decoder: llama, 256 packed": setting("llama3.2-1b", length=256, packed=True),
    "decoder: llama, 2 micro-batches": setting("llama3.2-1b", accumulate=2),
    "decoder: llama, pure bf16, 256, remat": setting("llama3.2-1b", length=256, policy="pure_bf16", remat="full"),
    "decoder: llama, V 8192": setting("llama3.2-1b", rows=2, length=32, vocab_size=8192),
    "decoder: llama, LoRA": setting("llama3.2-1b", recipe=LORA),
    "decoder: llama, QLoRA": setting("llama3.2-1b", recipe=QLORA),
    "decoder: llama, LoRA, bf16, unrolled": setting("llama3.2-1b", recipe=LORA, policy="bf16", unroll=True),
    "decoder: llama, 128, bf16, unrolled": setting("llama3.2-1b", length=128, policy="bf16", unroll=True),
    "decoder: gpt2, fp16 with its loss scale": setting("gpt2", policy="f16"),
    "decoder: llama, fp16, unrolled": setting("llama3.2-1b", policy="f16", unroll=True),
    "encoder-decoder: t5, bf16, unrolled": setting("t5-small", policy="bf16", unroll=True),
    "decoder: llama, Lion": setting("llama3.2-1b", optimizer={"name": "lion"}, **HEAVY),
    "decoder: gpt2, Muon": setting("gpt2", optimizer={"name": "muon", "ns_steps": 3}, **HEAVY),
    "decoder: llama, Adafactor": setting("llama3.2-1b", optimizer={"name": "adafactor", "min_dim": 32}, **HEAVY),
    "decoder: llama, data x 2, tensor x 2": setting("llama3.2-1b", mesh={"data": 2, "tensor": 2}),
    "decoder: llama, fsdp x 4": setting("llama3.2-1b", mesh={"fsdp": 4}),
    "decoder: llama, fsdp x 2, tensor x 2": setting("llama3.2-1b", mesh={"fsdp": 2, "tensor": 2}),
    "decoder: llama, sequence x 2": setting("llama3.2-1b", mesh={"sequence": 2}),
    "decoder: llama, fsdp x 2, sequence x 2": setting("llama3.2-1b", mesh={"fsdp": 2, "sequence": 2}),
    "encoder-decoder: t5, sequence x 2": setting("t5-small", mesh={"sequence": 2}),
    "encoder-decoder: t5, data x 2, fsdp x 2": setting("t5-small", mesh={"data": 2, "fsdp": 2}),
    "encoder: bert": setting("bert-base"),
    "encoder: bert, remat": setting("bert-base", remat="full"),
    "encoder: bert, LoRA": setting("bert-base", recipe=LORA),
    "encoder: roberta, 128, bf16": setting("roberta-base", length=128, policy="bf16"),
    "encoder-decoder: t5": setting("t5-small"),
    "encoder-decoder: t5, remat": setting("t5-small", remat="full"),
    "encoder-decoder: t5 1.1, (IA)3": setting("t5-v1.1-small", recipe={"method": "ia3"}),
    "encoder-decoder: bart, 32 of 128": setting("bart-base", length=32, source=128),
    "encoder-decoder: bart, bf16, remat": setting("bart-base", policy="bf16", remat="full"),
}


def compiled(given: Setting):
    """What the compiler says about one device: bytes of arguments and of temporaries."""
    run = memory.Run.of(given)
    arguments = (run.state, run.frozen, run.batch)
    if not given.mesh:
        program = jax.jit(run.update, donate_argnums=0).lower(*arguments)
        return program.compile(compiler_options=FAST).memory_analysis()
    mesh = meshes.make_mesh(given.mesh)
    layouts = states.shardings(arguments[:2], mesh, heads=heads(given.config))
    layouts = (*layouts, meshes.batch_shardings(run.batch, mesh))
    placed = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), arguments, layouts)
    whole = NamedSharding(mesh, PartitionSpec())
    with jax.set_mesh(mesh):
        program = jax.jit(run.update, donate_argnums=0, out_shardings=(layouts[0], whole)).lower(*placed)
        return program.compile(compiler_options=FAST).memory_analysis()


@pytest.mark.slow
def test_the_account_is_what_the_compiler_says():
    rows = []
    for name, given in SETTINGS.items():
        told, real = memory.training(given), compiled(given)
        errors = [
            a / b - 1 for a, b in ((told.state, real.argument_size_in_bytes), (told.rest, real.temp_size_in_bytes))
        ]
        megabytes = [told.state, real.argument_size_in_bytes, told.rest, real.temp_size_in_bytes]
        rows.append([name, *(f"{n / 1e6:.2f}" for n in megabytes), *(f"{100 * e:+.1f}" for e in errors)])
    print_table("Megabytes on a device", ["setting", "state", "compiler", "rest", "compiler", "%", "%"], rows)
    assert len(rows) >= 20 and {row[0].split(":")[0] for row in rows} == {"decoder", "encoder", "encoder-decoder"}
    assert not [row for row in rows if abs(float(row[-2])) > 5]
    assert not [row for row in rows if abs(float(row[-1])) > 25]


GPT2 = SETTINGS["decoder: gpt2, 16 bytes/parameter"]


def test_textbook_facts():
    count = sum(leaf.size for leaf in jax.tree.leaves(GPT2.shapes))
    told = memory.training(GPT2)
    assert told.weights == told.gradients == 4 * count
    # Two moments in f32 and the optimizer's counters.
    assert 8 * count < told.optimizer < 8 * count + 64
    # Weights, gradients, moments: 16 bytes a parameter, and the clipped gradients beside the raw ones 4 more.
    assert told.weights + told.gradients + told.optimizer == pytest.approx(16 * count, rel=1e-4)
    assert 16 * count < told.total < 24 * count
    unclipped = memory.training(GPT2.change(optimizer={"name": "adamw", "clip": 0.0}))
    assert 16 * count < unclipped.total < told.total
    assert memory.training(GPT2.change(policy="pure_bf16")).weights == 2 * count
    assert memory.training(GPT2.change(optimizer={"name": "sgd"})).optimizer < 64


def test_published_models():
    """Llama 2 7B: 6,738,415,616 parameters; NF4 with double quantization: 4.127 bits for each that is quantized."""
    llama = Setting(preset("llama2-7b"), 1, 128, policy="pure_bf16", remat="full")
    told = memory.decoding(llama)
    assert told.weights == 2 * 6_738_415_616
    # Keys and values of 32 layers, 4096 wide, in bf16: half a megabyte a token.
    assert told.cache == pytest.approx(128 * 2 * 32 * 4096 * 2, rel=1e-3)
    kernels = 32 * (4 * 4096**2 + 3 * 4096 * 11_008)
    quantized = memory.decoding(llama.change(recipe={"method": "nf4"})).weights
    assert quantized == pytest.approx(2 * (6_738_415_616 - kernels) + kernels * 4.127 / 8, rel=2e-3)


DECODERS = {"gpt2": "gpt2", "llama": "llama3.2-1b", "bart": "bart-base"}


@pytest.mark.parametrize("name", DECODERS)
def test_decoding_is_what_the_compiler_says(name):
    given = setting(DECODERS[name], rows=4, length=128, n_layers=3)
    told = memory.decoding(given)
    program, arguments = memory._decoder(given)
    real = jax.jit(program, donate_argnums=2, keep_unused=True).lower(*arguments)
    real = real.compile(compiler_options=FAST).memory_analysis()
    assert told.state == pytest.approx(real.argument_size_in_bytes, rel=0.05)
    assert told.total == pytest.approx(real.argument_size_in_bytes + real.temp_size_in_bytes, rel=0.1)


@pytest.mark.parametrize("limit", [99, 1500, 1501, 2000, 5000, 70_000, 300_000])
def test_the_largest_batch_is_the_one_that_counting_up_finds(limit):
    def account(given: Setting) -> memory.Account:
        rows = given.rows
        return memory.Account(1000, 0, rows, 0, 0, max(500, 3 * rows, 11 * rows - 9000), 0, 0)

    given = SETTINGS["decoder: llama, 2 micro-batches"]
    counted = 0
    while account(given.change(rows=counted + 2)).total <= limit:
        counted += 2
    found = capacity.largest_rows(given, limit, account)
    assert counted - max(2, counted // 50) <= found <= counted


def test_a_run_that_does_not_fit_is_told_what_would():
    given = SETTINGS["decoder: gpt2"]
    told = memory.training(given)
    capacity.refuse_too_large(given, told, told.total)
    expected = r"there are 1\d\.\d* MB; it would fit with data.batch_size=\d, or model.remat='full' .*, or accumulate=8"
    with pytest.raises(ValueError, match=expected):
        capacity.refuse_too_large(given, told, told.total // 2)


def test_what_if_orders_methods_as_they_should_be():
    found = capacity.what_if(SETTINGS["decoder: gpt2"])
    assert found["nf4 + lora"].weights < found["int8 + lora"].weights < found["lora, rank 8"].weights
    assert found["lora, rank 8"].optimizer < found["full"].optimizer / 5
    assert found["bitfit"].optimizer < found["full"].optimizer / 20


def test_a_walk_over_a_program():
    """Hand-counted: what is made by a kernel lives until its last reader; what is fused takes nothing."""
    x = jax.ShapeDtypeStruct((8, 8), np.float32)  # 256 bytes
    count = lambda f, *args: live.peak(jax.jit(f).trace(*args).jaxpr).total()  # noqa: E731
    assert count(lambda a: a + 1, x) == 0
    assert count(lambda a: (a @ a) + 1, x) == 256
    assert count(lambda a: a @ a @ a @ a, x) == 2 * 256
    assert count(lambda a: a @ (a + 1) @ a, x) == 2 * 256
    assert count(lambda a: (a @ a) @ (a @ (a + 1)), x) == 3 * 256
    # A result of its own belongs to the caller.
    assert count(lambda a: a @ a, x) == 0
    turns = lambda a: jax.lax.scan(lambda c, _: (c @ a, c), a, length=5)  # noqa: E731
    assert 5 * 256 <= count(lambda a: turns(a)[1] @ a, x) <= 7 * 256
    assert live.carried(jax.jit(lambda a: turns(a)[0]).trace(x).jaxpr) == 256


def test_an_unrolled_loop_keeps_its_turns_where_a_loop_keeps_stacks():
    """Hand-counted: of bf16 turns that a product reads XLA's CPU backend keeps two bytes, of a loop's stack four."""
    x = jax.ShapeDtypeStruct((8, 8), np.dtype("bfloat16"))  # 128 bytes

    def there_and_back(a, unroll):
        last, kept = jax.lax.scan(lambda c, _: (c @ a, c @ a), a, length=5, unroll=unroll)
        return jax.lax.scan(lambda c, k: (c @ k, None), last, kept, reverse=True, unroll=unroll)[0]

    def count(unroll):
        return live.peak(jax.jit(lambda a: there_and_back(a, unroll)).trace(x).jaxpr, cpu=True).total()

    # Five turns, and at most two products that are on their way.
    assert 5 * 128 <= count(5) <= 7 * 128
    stacked = 5 * 128 * (2 if live._WIDE_STACKS else 1)
    assert stacked <= count(1) and count(5) < count(1)
    # A stack that is read as a whole is there once: beside it the carry, the one before, and the turn to be written.
    whole = lambda a: jax.lax.scan(lambda c, _: (c @ a, c @ a), a, length=5, unroll=5)[1].reshape(40, 8) @ a  # noqa: E731
    assert live.peak(jax.jit(whole).trace(x).jaxpr).total() == (5 + 3) * 128
