"""The memory account against what XLA's compiler says, over families, methods, optimizers, precisions and meshes."""

import jax
from jax.sharding import NamedSharding, PartitionSpec

from research.core import mesh as meshes
from research.models import preset
from research.recipes.assemble import heads
from research.report import print_table
from research.scaling import memory
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
    "decoder: gpt2, dots remat": setting("gpt2", remat="dots"),
    "decoder: gpt2, 16 bytes/parameter": setting("gpt2", **HEAVY),
    "decoder: gpt2, soft prompt": setting("gpt2", recipe={"method": "prompt", "length": 8}),
    "decoder: gpt2, BitFit": setting("gpt2", recipe={"method": "bitfit"}),
    "decoder: llama, 256 packed": setting("llama3.2-1b", length=256, packed=True),
    "decoder: llama, 2 micro-batches": setting("llama3.2-1b", accumulate=2),
    "decoder: llama, pure bf16, 256, remat": setting("llama3.2-1b", length=256, policy="pure_bf16", remat="full"),
    "decoder: llama, V 8192": setting("llama3.2-1b", rows=2, length=32, vocab_size=8192),
    "decoder: llama, LoRA": setting("llama3.2-1b", recipe=LORA),
    "decoder: llama, QLoRA": setting("llama3.2-1b", recipe=QLORA),
    "decoder: llama, unrolled": setting("llama3.2-1b", unroll=True, n_layers=3),
    "decoder: llama, Lion": setting("llama3.2-1b", optimizer={"name": "lion"}, **HEAVY),
    "decoder: llama, Muon": setting("llama3.2-1b", optimizer={"name": "muon"}, **HEAVY),
    "decoder: llama, Adafactor": setting("llama3.2-1b", optimizer={"name": "adafactor", "min_dim": 32}, **HEAVY),
    "decoder: llama, data x 2, tensor x 2": setting("llama3.2-1b", mesh={"data": 2, "tensor": 2}),
    "decoder: llama, data x 4": setting("llama3.2-1b", mesh={"data": 4}),
    "decoder: llama, fsdp x 4": setting("llama3.2-1b", mesh={"fsdp": 4}),
    "encoder: bert": setting("bert-base"),
    "encoder: bert, remat": setting("bert-base", remat="full"),
    "encoder: bert, LoRA": setting("bert-base", recipe=LORA),
    "encoder: bert, labels": setting("bert-base", head="sequence"),
    "encoder: roberta, 128, bf16": setting("roberta-base", length=128, policy="bf16"),
    "encoder-decoder: t5": setting("t5-small"),
    "encoder-decoder: t5, remat": setting("t5-small", remat="full"),
    "encoder-decoder: t5 1.1, (IA)3": setting("t5-v1.1-small", recipe={"method": "ia3"}),
    "encoder-decoder: bart, 32 of 128": setting("bart-base", length=32, source=128),
    "encoder-decoder: bart, bf16, remat": setting("bart-base", policy="bf16", remat="full"),
}


def compiled(given: Setting):
    """What the compiler says about one device: bytes of arguments and of temporaries."""
    run = memory._Run.of(given)
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
