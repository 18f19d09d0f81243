"""Bad input of models behind the protocol, tools, agents and their budgets; one line that says what was given."""

import pytest

from research.apps.protocol import Options
from research.apps.reasoning import self_consistency, vote
from research.apps.remote import Address, RemoteModel
from research.apps.tools import Tools
from research.apps.trace import Budget, read_traces
from research.apps.wiki import Wiki
from research.data.byte_tokenizer import ByteTokenizer
from research.decoding.local import LocalModel
from research.models import build, preset


def encoder():
    return build(preset("bert-base").replace(vocab_size=512, d_model=16, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=16))


def no_tools(folder):
    return RemoteModel(Address("http://x"), "m").write(["text"], Options(tools=({"type": "function"},)))


CASES = {
    "address that is a file": (lambda p: Address("file:///etc/passwd"), "begin with http:// or https://, given 'file:"),
    "address without tries": (lambda p: Address("http://x", tries=0), "at least 1 try and a timeout .*given 0, 60"),
    "address without time": (lambda p: Address("http://x", timeout=0), "above 0 seconds; given 4, 0"),
    "key that is not set": (lambda p: Address("http://x", "NO_SUCH_KEY"), "variable NO_SUCH_KEY is not set"),
    "no workers": (lambda p: RemoteModel(Address("http://x"), "m", workers=0), "at least 1 worker, given 0"),
    "tools for a text": (no_tools, "no place for tools"),
    "encoder that is to write": (lambda p: LocalModel(encoder(), {}, ByteTokenizer()), "an encoder alone produces no"),
    "no new tokens": (lambda p: Options(max_new_tokens=0), "max_new_tokens >= 1.*given Options"),
    "vote without answers": (lambda p: vote([]), "at least one answer"),
    "samples that are the same": (
        lambda p: self_consistency(None, ["a"], "whole", Options()),
        "temperature above 0; given 10, 0",
    ),
    "tools without time": (lambda p: Tools([], timeout=0), "timeout above 0 .*given 0"),
    "tool that is not there": (lambda p: Tools([]).get("search"), "unknown tool 'search'; have \\[\\]"),
    "budget of nothing": (lambda p: Budget(steps=0), "at least 1, given Budget\\(steps=0"),
    "encyclopedia without pages": (lambda p: Wiki({}), "at least one page"),
    "file of traces that is not there": (lambda p: read_traces(p / "none.jsonl"), "none.jsonl"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_in_one_line(case, tmp_path):
    act, reason = CASES[case]
    with pytest.raises((ValueError, FileNotFoundError), match=reason) as caught:
        act(tmp_path)
    assert "\n" not in str(caught.value)
