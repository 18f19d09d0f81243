"""What a compiled step sends over every kind of mesh, held against theory: which collectives, and how many bytes.

A ring of n devices sends (n - 1)/n of an array to gather it and twice that to add it up everywhere. XLA's CPU compiler
adds up gradients of cut weights everywhere and keeps a part; others scatter them, which is half of it.

D width · L layers · F feed-forward width · N, K, H heads, key heads and their size · V vocabulary
"""

import jax
import pytest

from research.models import preset
from research.scaling.dry_run import dry_run
from research.scaling.memory import Setting

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
ROWS, LENGTH = 8, 64
MODEL = preset("llama-7b").replace(
    vocab_size=512, d_model=64, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=16, d_ff=192, max_length=LENGTH
)
MARGIN = 1.15


def theory(data=1, fsdp=1, tensor=1, sequence=1):
    """kind -> bytes that a device sends in a step of a decoder with gated layers and an output table of its own."""
    c, part = MODEL, lambda n: (n - 1) / n
    D, L, F, H = c.d_model, c.n_layers, c.d_ff, c.head_dim
    table = 4 * c.vocab_size * D
    layers = 4 * L * 2 * D * H * (c.n_heads + c.n_kv_heads) + 3 * 4 * L * D * F
    x = 4 * ROWS * LENGTH * D / (data * fsdp * sequence)
    keys = 2 * 4 * ROWS * LENGTH * c.n_kv_heads * H / (data * fsdp * tensor * sequence)
    # Weights for the forward and the backward pass; what is recomputed there shares them. The output layer has its
    # gradients from the forward pass.
    gathered = part(fsdp) * (2 * layers + table) / tensor
    # A table of tokens that both axes cut is gathered over `tensor`.
    gathered += part(tensor) * table / fsdp if fsdp > 1 else 0
    added = 2 * part(fsdp) * (layers + table) / tensor
    added += 2 * part(data * sequence) * (layers + 2 * table) / (fsdp * tensor)
    # Behind attention and the feed-forward layer, before them in the backward pass once for each of q, k, v, gate and
    # up (the CPU's compiler sends them before it adds them up), and once for each table.
    added += 2 * part(tensor) * x * (7 * L + 2)
    # Keys and values go round twice, their gradients home too.
    handed_on = L * keys * (3 * sequence - 2) if sequence > 1 else 0
    # Rows of the table are cut along D like itself; forward and backward.
    turned = 2 * part(fsdp) * x
    kinds = {"all-gather": gathered, "all-reduce": added, "collective-permute": handed_on, "all-to-all": turned}
    return {kind: sent for kind, sent in kinds.items() if sent}


@pytest.mark.parametrize(
    ("axes", "remat"),
    [
        ({"data": 8}, "none"),
        ({"fsdp": 8}, "full"),
        ({"tensor": 2}, "none"),
        ({"sequence": 4}, "none"),
        ({"data": 2, "fsdp": 2, "tensor": 2}, "none"),
        ({"fsdp": 2, "sequence": 2, "tensor": 2}, "none"),
    ],
    ids=str,
)
def test_a_step_sends_what_theory_says(axes, remat):
    # Logits of a quarter of the positions at a time: the gradient of the table is sent once, not after each.
    run = dry_run(Setting(MODEL, ROWS, LENGTH, mesh=axes, remat=remat, policy="f32", chunk=LENGTH // 4))
    expected = theory(**axes)
    told = {kind: f"{sent:,.0f} of {expected.get(kind, 0):,.0f}" for kind, sent in run.sent.items()}
    assert set(expected) <= set(run.sent), told
    # A few ids may change places too.
    assert sum(sent for kind, sent in run.sent.items() if kind not in expected) < 4 * ROWS * LENGTH, told
    assert sum(run.sent.values()) <= MARGIN * sum(expected.values()), told
    assert sum(run.sent.values()) >= sum(expected.values()) / MARGIN, told
