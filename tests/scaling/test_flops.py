"""FLOPs against published numbers (Chinchilla, table A4) and against the compiler's count."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core import tree
from research.models import ModelConfig, build, preset
from research.scaling import flops

FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
TINY = {"n_layers": 2, "d_model": 256, "n_heads": 4, "head_dim": 64, "d_ff": 768, "vocab_size": 1024, "max_length": 64}


def table(data_dir, name):
    with open(data_dir / "published_tables" / name) as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def chinchilla(row, ffw, vocab=32_000) -> ModelConfig:
    sizes = {ours: int(row[ours]) for ours in ("d_model", "n_heads", "n_layers")}
    return ModelConfig(
        vocab_size=vocab, d_ff=int(row[ffw]), head_dim=int(row.get("kv_size", 0)), max_length=2048, **sizes
    )


def test_chinchilla_table_a4(data_dir):
    rows = table(data_dir, "chinchilla_tableA4_flops.csv")
    for row in rows:
        config, length = chinchilla(row, "ffw", int(row["vocab"])), int(row["seq_len"])
        # The published figures leave out the output layer.
        ours = flops.training(config, length) - 3 * flops.forward(config, length)["head"]
        assert ours == row["F_exact_fwd_bwd_per_seq"]
        assert ours / row["F_6ND"] == pytest.approx(row["ratio_exact_over_6ND"], abs=1e-6)
    assert len(rows) == 6


def test_two_operations_a_parameter_and_token_beside_attention(data_dir):
    """The products of a token with matrices are 2 · their parameters, for every fifth Chinchilla model of table A9."""
    rows = table(data_dir, "chinchilla_tableA9_models.csv")[::5]
    for row in rows:
        config = chinchilla(row, "ffw_size")
        parts = flops.forward(config, 7)
        shapes = tree.paths(build(config.replace(tied=False)).abstract())
        matrices = sum(w.size for path, w in shapes.items() if path.endswith("kernel") or "head/table" in path)
        assert parts["projections"] + parts["mlp"] + parts["head"] == 2 * 7 * matrices
        # Their models have relative positions, another D² + 2 D a layer, and count one table; millions are rounded.
        named = sum(
            w.size for path, w in shapes.items() if "positions" not in path and path != "embed/tokens/embedding"
        )
        theirs = named + config.n_layers * (config.d_model**2 + 2 * config.d_model)
        assert theirs == pytest.approx(row["params"], rel=0.02)
    assert len(rows) == 10


FAMILIES = {
    "decoder, grouped keys, gated": ("llama3.2-1b", {"n_kv_heads": 2}),
    "decoder": ("gpt2", {}),
    "encoder": ("bert-base", {}),
    "encoder-decoder, gated": ("t5-v1.1-small", {"n_encoder_layers": 3}),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_compiler_counts_the_same(name):
    family, changes = FAMILIES[name]
    rates = dict.fromkeys(("embed_dropout", "attention_dropout", "residual_dropout"), 0.0)
    config = preset(family).replace(**TINY | rates | changes)
    model = build(config, unroll=True)
    ids = lambda length: jax.ShapeDtypeStruct((2, length), jnp.int32)  # noqa: E731
    batch = {"tokens": ids(48)} | ({"inputs": ids(64)} if config.kind == "encoder_decoder" else {})
    program = jax.jit(lambda p, b: model.logits(p, model.apply(p, b).hidden)).lower(model.abstract(), batch)
    counted = program.compile(compiler_options=FAST).cost_analysis()["flops"]
    # What the formula leaves out, norms and activations, is one to four per cent at this width.
    assert 2 * flops.forward(config, 48, source=64).total() == pytest.approx(counted, rel=0.05)


def test_the_compiler_counts_three_times_as_much_with_a_backward_pass():
    from research.recipes.pretrain import language_model_loss

    config = preset("gpt2").replace(**TINY, embed_dropout=0.0, attention_dropout=0.0, residual_dropout=0.0)
    model = build(config, unroll=True)
    loss = language_model_loss(model)
    shape = jax.ShapeDtypeStruct((2, 48), jnp.int32)
    batch = {"tokens": shape, "targets": shape, "loss_mask": jax.ShapeDtypeStruct((2, 48), jnp.float32)}
    program = jax.jit(jax.grad(lambda p, b: loss(p, b, None)[0])).lower(model.abstract(), batch)
    counted = program.compile(compiler_options=FAST).cost_analysis()["flops"]
    assert 2 * flops.training(config, 48) == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize("window", [0, 1, 5, 40])
@pytest.mark.parametrize("causal", [True, False])
def test_pairs_that_are_seen_are_counted_one_by_one(window, causal):
    base = preset("gpt2" if causal else "bert-base").replace(**TINY)
    config, T = base.replace(window=window), 17
    q, k = np.mgrid[:T, :T]
    seen = (k <= q) if causal else np.ones((T, T), bool)
    seen &= (q - k < window) if window else True
    seen &= (k - q < window) if window and not causal else True
    expected = 2 * seen.sum() * config.n_heads * config.head_dim * config.n_layers
    assert flops.forward(config, T, seen=True)["scores"] == expected


def test_remat_and_frozen_weights():
    config = preset("gpt2").replace(**TINY)
    parts, full = flops.forward(config, 32), flops.training(config, 32)
    assert full == 3 * parts.total()
    assert flops.training(config, 32, remat="full") == full + parts.total() - parts["head"]
    assert flops.training(config, 32, remat="dots") == full + parts["scores"] + parts["softmax"] + parts["values"]
    assert flops.training(config, 32, frozen=True) == full - parts["projections"] - parts["mlp"] - parts["head"]
    per_token = flops.training_per_token(config, {"tokens": np.zeros((4, 32))})
    assert per_token == flops.training(config, 32, seen=True) / 32 < full / 32
