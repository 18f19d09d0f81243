"""One dial for a model's size, and the token counts of a sweep."""

import pytest

from research.core import tree
from research.models import build, preset
from research.scaling.grid import Dial, token_counts


def test_depth_sets_width_heads_and_rate():
    dial = Dial(width_per_layer=24, head_dim=12, learning_rate=4e-3, base_width=48, rate_power=0.5)
    sizes = dial.model(3)
    assert sizes == {"n_layers": 3, "d_model": 72, "n_heads": 6, "n_kv_heads": 6, "head_dim": 12, "d_ff": 192}
    described = preset("llama-7b").replace(vocab_size=100, tied=True, **sizes)
    # Per layer 4 D² of attention, 3 D F of the gated feed-forward part, two norms; table and last norm.
    assert tree.count(build(described).abstract()) == 3 * (4 * 72**2 + 3 * 72 * 192 + 2 * 72) + 100 * 72 + 72
    assert dial.rate(2) == 4e-3 and dial.rate(8) == pytest.approx(2e-3)


def test_token_counts_are_whole_steps_within_the_span():
    counts = token_counts(1000, 20_000, tokens=(500, 4000), multiples=(1, 2), budgets=(6e7,), per_step=300)
    assert counts == [600, 3900, 9900, 20100, 39900]
    # 6 N D = C, to half a step.
    assert token_counts(1000, 0, budgets=(6e7,), per_step=1) == [10_000]
    assert token_counts(1000, 20_000, tokens=(500, 4000), multiples=(1,), span=(1000, 5000)) == [4000]
    assert token_counts(1000, 0, tokens=(10,), per_step=64) == [64]
