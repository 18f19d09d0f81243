"""A user's own files become a corpus: counts, duplicates, split, resuming, refusals, and the two commands."""

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from research.data import prepare as preparing
from research.data.byte_tokenizer import ByteTokenizer
from research.data.corpus import TokenCorpus
from research.data.files import find_files
from research.data.rows import WindowRows

ROOT = Path(__file__).resolve().parents[2]


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(30):
        (folder / f"{i:02}.txt").write_text(f"document {i} é" * (i + 1), encoding="utf-8")
    (folder / "copy.md").write_text((folder / "03.txt").read_text(encoding="utf-8"), encoding="utf-8")
    rows = [{"text": f"row {i % 7}"} for i in range(20)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def test_nothing_is_lost_or_doubled(texts, tmp_path):
    tokenizer, out = ByteTokenizer(), tmp_path / "out"
    seen = []
    progress = lambda done, total: seen.append((done, total))  # noqa: E731
    index = preparing.prepare(find_files([texts]), tokenizer, out, heldout=0.2, shard_tokens=500, progress=progress)
    assert index["duplicates_removed"] == 1 + 13
    assert all(a <= b for (a, _), (b, _) in zip(seen, seen[1:], strict=False)) and seen[-1][0] <= seen[-1][1]
    corpora = {s: TokenCorpus.open(out, s, tokenizer=tokenizer) for s in ("train", "heldout")}
    assert len(corpora["train"].shards) > 3 and corpora["train"].shards[0].tokens.dtype == np.uint16
    found = [tokenizer.decode(c.document(i)) for c in corpora.values() for i in range(c.num_documents)]
    want = {f.read_text(encoding="utf-8") for f in texts.glob("*.txt")} | {f"row {i}" for i in range(7)}
    assert len(found) == len(set(found)) and set(found) == want
    assert sum(c.num_bytes for c in corpora.values()) == sum(len(t.encode()) for t in want)
    for split, corpus in corpora.items():
        entry = index["splits"][split]
        assert (corpus.num_documents, corpus.num_tokens) == (entry["documents"], entry["tokens"])
        for shard in entry["shards"]:
            assert hashlib.sha256((out / shard["file"]).read_bytes()).hexdigest() == shard["sha256"]
    assert len(WindowRows(corpora["train"], 64)) > 10
    # The split follows content: the same documents in another order and folder fall the same way.
    again = preparing.prepare(find_files([texts])[::-1], tokenizer, tmp_path / "other", heldout=0.2)
    assert again["splits"]["heldout"]["documents"] == index["splits"]["heldout"]["documents"]


@pytest.mark.parametrize("stop", [1, 17, 33, 45])
def test_interrupted_and_started_again(texts, tmp_path, stop):
    files, tokenizer = find_files([texts]), ByteTokenizer()
    whole = preparing.prepare(files, tokenizer, tmp_path / "whole", heldout=0.2, shard_tokens=300)

    class Stopped(Exception):
        pass

    count = 0

    def interrupt(done, total):
        nonlocal count
        count += 1
        if count == stop:
            raise Stopped

    with pytest.raises(Stopped):
        preparing.prepare(files, tokenizer, tmp_path / "cut", heldout=0.2, shard_tokens=300, progress=interrupt)
    with pytest.raises(FileNotFoundError, match="left half done"):
        TokenCorpus.open(tmp_path / "cut")
    resumed = preparing.prepare(files, tokenizer, tmp_path / "cut", heldout=0.2, shard_tokens=300)
    assert resumed == whole
    # A finished corpus is returned as it is.
    assert preparing.prepare(files, tokenizer, tmp_path / "cut", heldout=0.2, shard_tokens=300) == whole


def test_refusals(texts, tmp_path):
    files, tokenizer, out = find_files([texts]), ByteTokenizer(), tmp_path / "out"
    preparing.prepare(files, tokenizer, out)
    with pytest.raises(ValueError, match="finished corpus of other inputs"):
        preparing.prepare(files[:-1], tokenizer, out)
    with pytest.raises(ValueError, match="unknown split 'test'; have"):
        TokenCorpus.open(out, "test")
    with pytest.raises(ValueError, match="made with another tokenizer"):
        TokenCorpus.open(out, tokenizer=ByteTokenizer(extra=["<x>"]))
    with pytest.raises(ValueError, match="heldout must be"):
        preparing.prepare(files, tokenizer, tmp_path / "b", heldout=1.5)
    with (out / "train-00000.bin").open("ab") as file:
        file.write(b"xx")
    with pytest.raises(ValueError, match="prepare the corpus again"):
        TokenCorpus.open(out)
    (texts / "bad.jsonl").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.jsonl, line 1"):
        preparing.prepare(find_files([texts]), tokenizer, tmp_path / "c")


def test_commands(texts, tmp_path, capsys, data_dir):
    out = tmp_path / "corpus"
    command = tool("prepare_corpus").main
    assert command(["--tokenizer=bytes", f"--out={out}", "--heldout=0.2", str(texts)]) == 0
    assert "removed  14 exact duplicates" in capsys.readouterr().out
    trained = tmp_path / "trained"
    botchan = str(data_dir / "botchan" / "botchan.txt")
    for _ in range(2):  # the second call finds both tokenizer and corpus
        assert command(["--train_vocab=600", f"--out={trained}", "--heldout=0", botchan]) == 0
    assert json.loads((trained / "index.json").read_text())["tokenizer"]["vocab_size"] == 600
    assert command(["--tokenizer=bytes", f"--out={out}", str(tmp_path / "absent")]) == 1
    assert "no file or folder" in capsys.readouterr().err
    config = tmp_path / "config.py"
    section = {"kind": "corpus", "path": str(trained), "length": 48, "batch_size": 2}
    config.write_text(f"def get_config(arg=''):\n    return {{'data': {section!r}}}\n")
    show = tool("show_batch").main
    assert show([f"--config={config}", f"--tokenizer={trained / 'tokenizer'}"]) == 0
    assert "tokens predicted" in capsys.readouterr().out
    assert show([f"--config={config}", "--tokenizer=bytes"]) == 1
    assert "another tokenizer" in capsys.readouterr().out.replace("\n", " ")
    soft = {"data": section, "peft": [{"method": "prompt", "length": 2}]}
    config.write_text(f"def get_config(arg=''):\n    return {soft!r}\n")
    assert show([f"--config={config}", f"--tokenizer={trained / 'tokenizer'}"]) == 0
    assert "<virtual 0><virtual 1>" in capsys.readouterr().out
    config.write_text("def get_config(arg=''):\n    return {'model': {}, 'data': ''}\n")
    assert show([f"--config={config}", "--tokenizer=bytes"]) == 1
    assert "no data section of experiments.train" in " ".join(capsys.readouterr().out.split())
