"""Data sections of a config: every kind and objective gives a batch that passes its check and can be shown."""

import json
import subprocess
import sys

import numpy as np
import pytest

from research.data import build_rows, build_source, check_batch, render
from research.data.build import FROM_EXAMPLES, OBJECTIVES, PREFERENCES
from research.data.byte_tokenizer import ByteTokenizer
from research.data.corpus import TokenCorpus
from research.data.rows import DocumentRows
from research.data.sources import one_pass


@pytest.fixture(scope="module")
def tokenizer():
    return ByteTokenizer(extra=["<mask>", *(f"<extra_id_{i}>" for i in range(30))])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("texts")
    for i in range(40):
        (root / f"{i}.txt").write_text(f"Document {i}. It has {i * i} words. " * (1 + i % 5))
    rows = [{"prompt": f"Double {i}:", "completion": f" {2 * i}"} for i in range(60)]
    (root / "tune.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    pairs = [
        {"prompt": f"Double {i % 30}:", "chosen": f" {2 * (i % 30)}!{i}", "rejected": f" {i % 30}"} for i in range(60)
    ]
    (root / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in pairs))
    return root


def section(folder, objective):
    examples = folder / ("pairs.jsonl" if objective in PREFERENCES else "tune.jsonl")
    return {
        "kind": "examples" if objective in FROM_EXAMPLES else "text",
        "path": str(examples if objective in FROM_EXAMPLES else folder),
        "column": "prompt",
        "objective": objective,
        "length": 64,
        "batch_size": 4,
        "heldout": 0.2,
    }


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective(folder, tokenizer, objective):
    config = section(folder, objective)
    source = build_source(config, tokenizer)
    for step in (0, 9):
        batch = source.batch(step)
        check_batch(batch, tokenizer.vocab_size, 64)
        assert ("inputs" in batch) == (objective in ("span", "denoise") or objective.endswith("seq2seq"))
        assert ("horizon" in batch) == ("prefix" in objective)
    shown = render(batch, tokenizer, rows=1)
    assert "tokens predicted" in shown.plain and any("bold underline" in str(s.style) for s in shown.spans)
    heldout = build_rows(config, tokenizer, "heldout")
    assert 0 < len(heldout) < len(source.stream)
    assert sum(b["loss_mask"].sum() for b in one_pass(heldout, 4)) > 0


@pytest.mark.parametrize("objective", ["preference", "unpaired"])
def test_all_answers_to_a_prompt_are_on_one_side(folder, tokenizer, objective):
    def prompts(split):
        found = [row_of.row(i, None) for row_of in [build_rows(section(folder, objective), tokenizer, split)]
                 for i in range(len(row_of))]  # fmt: skip
        heads = [row["tokens"][0][: int(row["loss_mask"][0].argmax()) + 1] for row in found]
        return [tokenizer.decode(ids.tolist()) for ids in heads]

    train, heldout = prompts("train"), prompts("heldout")
    assert len(train) + len(heldout) == (60 if objective == "preference" else 120)
    assert heldout and not set(train) & set(heldout)


def test_a_chat_template_is_given_by_the_config(folder, tokenizer, tmp_path):
    says = lambda role, text: {"role": role, "content": text}  # noqa: E731
    chats = [{"messages": [says("user", f"{i}?"), says("assistant", f"{i}!")], "label": i % 2 == 0} for i in range(9)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(c) + "\n" for c in chats))
    config = section(folder, "unpaired") | {
        "path": str(tmp_path / "chats.jsonl"),
        "heldout": 0.0,
        "shuffle": False,
        "length": 70,
    }
    with pytest.raises(ValueError, match="this tokenizer has no chat template"):
        build_source(config, tokenizer)
    batch = build_source(config | {"chat_template": "chatml", "batch_size": 9}, tokenizer).batch(0)
    assert batch["desirable"].tolist() == [1, 0] * 4 + [1]
    text = tokenizer.decode(batch["tokens"][1, 0].tolist())
    assert "<|im_start|>user\n1?<|im_end|>\n<|im_start|>assistant\n1!<|im_end|>" in text


def test_show_marks_targets_and_padding(tokenizer):
    batch = {
        "tokens": np.array([[*tokenizer.encode("ab\nc"), 0, 0]]),
        "targets": np.array([[*tokenizer.encode("b\nc"), 0, 0, 0]]),
        "loss_mask": np.array([[0, 1, 1, 0, 0, 0]]),
        "segment_ids": np.array([[1, 1, 1, 1, 0, 0]]),
    }
    shown = render(batch, tokenizer)
    assert "(padding x 2)" in shown.plain and "1 document, 2 padding" in shown.plain
    bold = [shown.plain[s.start : s.end] for s in shown.spans if "underline" in str(s.style)]
    assert bold == ["<0x0A>", "<0x63>"]
    masked = {**batch, "targets": batch["tokens"], "tokens": np.full((1, 6), tokenizer.mask_id)}
    assert "[<mask>><0x62>]" in render(masked, tokenizer).plain
    assert "... 3 more" in render(batch, tokenizer, max_tokens=3).plain


def test_mixture_section(folder, tokenizer):
    parts = {"a": section(folder, "causal"), "b": section(folder, "tune")}
    source = build_source({"mix": parts, "weights": {"a": 3, "b": 1}, "batch_size": 8}, tokenizer)
    assert source.batch(0)["tokens"].shape == (8, 64) and source.stream.counts["a"] == 3072
    assert build_source({"mix": parts}, tokenizer).batch(1)["tokens"].shape == (8, 64)
    with pytest.raises(ValueError, match=r"unknown options \['lenght'\] of a mixture"):
        build_source({"mix": parts, "lenght": 1}, tokenizer)


def test_python_docs_section(tokenizer):
    source = build_source({"length": 128, "batch_size": 2}, tokenizer)
    check_batch(source.batch(0), tokenizer.vocab_size, 128)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"lenght": 5}, r"unknown data options \['lenght'\], did you mean 'length'\?; have"),
        ({"kind": "csv"}, "unknown data kind 'csv'; have"),
        ({"objective": "gpt"}, "unknown data objective 'gpt'; have"),
        ({"kind": "examples"}, "examples are for the objectives tune"),
        ({"objective": "tune"}, "needs kind 'examples' or 'tfds', got 'text'"),
        ({"objective": "span", "pack": False}, "objective 'span' always packs"),
        ({"unusable": "drop"}, "unusable is of judged answers, for"),
        ({"chat_template": "chatml"}, "chat_template writes chats"),
        ({"objective": "unpaired", "templates": ("{a} ||| {b}",)}, "templates make examples, for"),
        ({"heldout": 0.0, "split": "heldout"}, "the heldout split of text .* is empty"),
    ],
)
def test_config_errors(folder, tokenizer, change, match):
    with pytest.raises(ValueError, match=match):
        build_source(section(folder, "causal") | change, tokenizer)


def test_corpus_in_memory_counts_bytes(tokenizer):
    corpus = TokenCorpus.from_texts(["é", "", "ab"], tokenizer)
    assert corpus.num_bytes == 4 and corpus.num_documents == 2 and corpus.num_tokens == 4 + 2


def test_the_room_does_not_import_jax():
    code = "import sys, research.data, research.data.instructions, research.data.chat, research.data.prepare\n"
    code += "print([m for m in ('jax', 'flax', 'grain', 'tensorflow', 'tensorflow_datasets') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("objective", ["causal", "prefix", "mlm"])
def test_a_soft_prompt_goes_before_every_document_when_rows_are_not_shared(folder, tokenizer, objective):
    config = section(folder, objective) | {"virtual": (900, 901)}
    rows = build_rows(config | {"pack": False}, tokenizer, "train")
    row = rows.row(0, np.random.default_rng(0))
    assert row["tokens"].shape == (66,) and row["tokens"][:2].tolist() == [900, 901]
    assert row["loss_mask"][:2].sum() == 0 and row["segment_ids"].max() == 1
    if objective == "prefix":
        plain = build_rows(section(folder, objective) | {"pack": False}, tokenizer).row(0, np.random.default_rng(0))
        assert row["horizon"].tolist() == [h + 2 for h in (*[plain["horizon"][0]] * 2, *plain["horizon"])]
    shared = build_rows(config, tokenizer, "train")
    with pytest.raises(ValueError, match="set pack=False"):
        for i in range(len(shared)):
            shared.row(i, np.random.default_rng(0))


def test_rows_of_one_document_predict_every_pair_once():
    documents = [[1, 2, 3], [4], [5, 6, 7, 8, 9], [10, 11, 12, 13]]
    rows = DocumentRows(TokenCorpus.from_documents(documents), 4)
    found = [rows.row(i) for i in range(len(rows))]
    pairs = sorted(
        (int(t), int(y)) for r in found for t, y, m in zip(r["tokens"], r["targets"], r["loss_mask"], strict=True) if m
    )
    assert pairs == sorted((a, b) for d in documents for a, b in zip(d, d[1:], strict=False))
    assert [r["segment_ids"].tolist() for r in found] == [
        [1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 1]]  # fmt: skip
    with pytest.raises(IndexError, match="row 5 of 5"):
        rows.row(5)
