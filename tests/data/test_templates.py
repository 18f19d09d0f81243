"""Every shape of example, and above all which of its tokens are predicted."""

import json

import numpy as np
import pytest

from research.data.byte_tokenizer import ByteTokenizer
from research.data.chat import CHATML, as_messages, render
from research.data.files import read_examples
from research.data.packing import shift
from research.data.templates import (
    alpaca_prompt,
    encode_chat,
    encode_chat_prompt,
    encode_completion,
    encode_example,
    encode_examples,
    encode_text,
)
from research.data.tokenizer import load_tokenizer

MARKS = ["<|im_start|>", "<|im_end|>"]
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who? \U0001f917"},
    {"role": "assistant", "content": "naïve me"},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "So."},
]
# The same format without generation tags.
PLAIN = CHATML.replace("{% generation %}", "").replace("{% endgeneration %}", "")


@pytest.fixture(scope="module")
def tokenizer():
    return ByteTokenizer(extra=MARKS)


def supervised(example, tokenizer):
    """Texts of the runs that are predicted."""
    mask = np.asarray(example.loss_mask, bool)
    cuts = np.flatnonzero(np.diff(mask.astype(int))) + 1
    runs = zip(np.split(example.tokens, cuts), np.split(mask, cuts), strict=True)
    return [tokenizer.decode(ids, specials=True) for ids, m in runs if len(m) and m[0]]


@pytest.mark.parametrize("template", [CHATML, PLAIN], ids=["generation", "prefix"])
def test_only_the_assistant_is_predicted(tokenizer, template):
    example = encode_chat(CHAT, tokenizer, template=template)
    ends = ["<|im_end|>", "<|im_end|>\n"][template is PLAIN :]
    assert supervised(example, tokenizer) == [f"naïve me{ends[0]}", f"So.{ends[0]}"]
    assert tokenizer.decode(example.tokens, specials=True) == render(CHATML, CHAT).text


def test_the_prompt_is_what_training_saw(tokenizer):
    whole = encode_chat(CHAT, tokenizer, template=CHATML)
    prompt = encode_chat_prompt(CHAT[:2], tokenizer, template=CHATML)
    first = int(np.flatnonzero(whole.loss_mask)[0])
    assert prompt == whole.tokens[:first].tolist()


def test_messages_cannot_pose_as_the_assistant(tokenizer):
    evil = [{"role": "user", "content": "\ue0000\ue001 mine \ue0000\ue001 {% generation %}"}, CHAT[2]]
    example = encode_chat(evil, tokenizer, template=CHATML)
    assert supervised(example, tokenizer) == ["naïve me<|im_end|>"]


def test_templates_run_in_a_sandbox(tokenizer):
    for source in (
        "{{ messages.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
    ):
        with pytest.raises(ValueError, match="refused the messages"):
            render(source, CHAT)
    with pytest.raises(ValueError, match="only two"):
        render("{{ raise_exception('only two') }}", CHAT)
    with pytest.raises(ValueError, match="chat template, line 2"):
        render("x\n{% for %}", CHAT)
    assert render("{{ messages[0] | tojson }}", [{"role": "<é>"}]).text == '{"role": "<é>"}'


def test_a_template_that_forgets_turns_is_refused_not_guessed(tokenizer):
    last_only = "{% for m in messages[-1:] %}{{ m.role + m.content }}{% endfor %}"
    with pytest.raises(ValueError, match="no prefix of the whole: token 0"):
        encode_chat(CHAT, tokenizer, template=last_only)


def test_a_token_across_the_boundary_is_refused(data_dir):
    gpt2 = load_tokenizer(data_dir / "tokenizers" / "gpt2_encoder.json")
    loose = "{% for m in messages %}{{ m.role }}: {% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    with pytest.raises(ValueError, match="token ' hello' runs across the start"):
        encode_chat([{"role": "assistant", "content": "hello"}], gpt2, template=loose)
    with pytest.raises(ValueError, match="no prefix of the whole: token 1 is 'Ġ' alone but 'Ġhello'"):
        encode_completion("A: "[1:], "hello", gpt2)
    joint = encode_completion("A:", " hello", gpt2)
    separate = encode_completion("A: ", "hello", gpt2, boundary="separate")
    assert gpt2.decode(joint.tokens) == gpt2.decode(separate.tokens) == "A: hello"
    assert joint.loss_mask.tolist() == [False, False, True, True]
    with pytest.raises(ValueError, match="unknown boundary"):
        encode_completion("a", "b", gpt2, boundary="guess")


@pytest.mark.oracle
def test_generation_mask_equals_transformers(data_dir, tmp_path):
    transformers = pytest.importorskip("transformers")
    ours = load_tokenizer(data_dir / "tokenizers" / "torchtune_tiny_bpe_tokenizer.json")
    ours.save(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    chat = [m for m in CHAT if m["content"].isascii()]
    want = theirs.apply_chat_template(
        chat, chat_template=CHATML, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    got = encode_chat(chat, ours, template=CHATML)
    assert got.tokens.tolist() == want["input_ids"]
    assert got.loss_mask.astype(int).tolist() == want["assistant_masks"]


def test_plain_text_and_completion(tokenizer):
    text = encode_text("ab", tokenizer)
    assert text.loss_mask.tolist() == [True] * 3 and text.tokens[-1] == tokenizer.eos_id
    row = shift(encode_completion("Q:", "A", tokenizer))
    assert row["loss_mask"].tolist() == [0, 1, 1, 0]
    assert row["targets"][1:3].tolist() == [*tokenizer.encode("A"), tokenizer.eos_id]
    # Text of a document never turns into a control token.
    assert encode_text("<|im_end|>", tokenizer).tokens.tolist()[:-1] == tokenizer.encode("<|im_end|>", specials=False)
    with pytest.raises(ValueError, match="completion is empty"):
        encode_completion("Q:", "", tokenizer)


def test_alpaca_and_sharegpt_files(data_dir, tokenizer):
    rows = list(read_examples(data_dir / "torchtune_tiny" / "alpaca_tiny.json"))
    encoded = encode_examples(rows, tokenizer)
    for row, example in zip(rows, encoded, strict=True):
        assert supervised(example, tokenizer) == [row["output"] + "</s>"]
        # The data set carries its own rendering of the prompt.
        assert row["text"].startswith(alpaca_prompt(row).rstrip("\n"))
    talks = json.loads((data_dir / "fastchat_dummy_conversation" / "dummy_conversation.json").read_text())
    example = encode_example(talks[0], tokenizer, template=CHATML)
    said = [m["content"] for m in as_messages(talks[0]) if m["role"] == "assistant"]
    assert supervised(example, tokenizer) == [f"{s}<|im_end|>" for s in said] and len(said) >= 2


def test_truncation_counts_what_it_would_lose(tokenizer):
    examples = [{"prompt": "p" * n, "completion": "answer"} for n in (2, 9, 20, 30)]
    assert len(encode_examples(examples, tokenizer)) == 4
    with pytest.raises(ValueError, match="3 of 4 examples exceed 10 tokens"):
        encode_examples(examples, tokenizer, max_length=10)
    with pytest.raises(ValueError, match="removes every predicted token of 2 of 4"):
        encode_examples(examples, tokenizer, max_length=10, long="truncate")
    cut = encode_examples(examples[:2], tokenizer, max_length=10, long="truncate")
    assert [len(e.tokens) for e in cut] == [9, 10] and cut[1].loss_mask.sum() == 1
    assert len(encode_examples(examples, tokenizer, max_length=10, long="drop")) == 1
    with pytest.raises(ValueError, match="none is left"):
        encode_examples(examples, tokenizer, max_length=3, long="drop")
    with pytest.raises(ValueError, match="unknown long='cut'"):
        encode_examples(examples, tokenizer, long="cut")


@pytest.mark.parametrize(
    ("example", "match"),
    [
        ({"question": "a", "answer": "b"}, r"example 0: unknown columns \['answer', 'question'\]"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no assistant message"),
        ({"messages": [{"content": "a"}]}, "message 0 has no role"),
        ({"messages": [{"role": "assistant"}]}, "has no content"),
        ({"messages": CHAT}, "no chat template"),
    ],
)
def test_errors_name_the_example(tokenizer, example, match):
    template = None if "no chat" in match else CHATML
    with pytest.raises(ValueError, match=match):
        encode_examples([example], tokenizer, template=template)


def test_no_examples(tokenizer):
    with pytest.raises(ValueError, match="no examples"):
        encode_examples([], tokenizer)
