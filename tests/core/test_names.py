"""The nearest known name."""

import pytest

from research.core.names import flat, meant


@pytest.mark.parametrize(
    ("name", "said"),
    [("lorra", ", did you mean 'lora'?"), ("lora", ", did you mean 'lora'?"), ("zzz", ""), (None, ""), (3, "")],
)
def test_the_nearest_name_or_nothing(name, said):
    assert meant(name, ["lora", "prefix", "prompt"]) == said


def test_nested_settings_have_dotted_names():
    nested = {"a": {"b": 1, "c": {"d": [2, {"e": 3}]}}, 4: None, "empty": {}}
    assert flat(nested) == {"a.b": 1, "a.c.d": [2, {"e": 3}], "4": None, "empty": {}} and flat({}) == {}
