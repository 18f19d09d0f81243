"""The nearest known name."""

import pytest

from research.core.names import meant


@pytest.mark.parametrize(
    ("name", "said"),
    [("lorra", ", did you mean 'lora'?"), ("lora", ", did you mean 'lora'?"), ("zzz", ""), (None, ""), (3, "")],
)
def test_the_nearest_name_or_nothing(name, said):
    assert meant(name, ["lora", "prefix", "prompt"]) == said
