"""The terminal command: completes, searches, chats; says in one line what is wrong."""

import io
import json

import jax
import pytest
from rich.console import Console

from experiments.generate import main
from research.data.byte_tokenizer import ByteTokenizer
from research.interop import save_pretrained
from research.interop.run import save_run
from research.models import ModelConfig, build

TINY = {"d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 32, "max_length": 96}


def call(*argv):
    """(exit code, what was written)."""
    console = Console(file=io.StringIO(), color_system="truecolor" if "--color" in argv else None, width=200)
    code = main([str(a) for a in argv], console)
    return code, console.file.getvalue()


@pytest.fixture(scope="module")
def story(data_dir):
    return data_dir / "stories260K" / "checkpoint_v1.bin"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    config = ModelConfig(vocab_size=ByteTokenizer().vocab_size, **TINY)
    return save_run(tmp_path_factory.mktemp("run"), config, build(config).init(jax.random.key(0)))


def test_completes_and_stops_at_a_string(story, capsys):
    code, text = call(story, "Once upon a time", "--max-new-tokens", 60, "--stop", "named")
    assert code == 0 and text == "Once upon a time, there was a little girl \n"
    assert "ended by stop string" in capsys.readouterr().err


def test_colours(story):
    code, text = call(story, "Once upon a time", "--max-new-tokens", 3, "--color", "--quiet")
    assert code == 0 and "\x1b[38;2;" in text


def test_samples_and_beams(story, capsys):
    code, text = call(story, "Once upon", "--samples", 2, "--temperature", 1, "--max-new-tokens", 4)
    assert code == 0 and "[1] " in text and "[2] " in text
    capsys.readouterr()
    code, text = call(story, "Once upon", "--samples", 2, "--beams", 2, "--max-new-tokens", 4, "--stop", "time")
    assert code == 0 and text.count("(score -") == 2 and "time" not in text
    assert "stop string" in capsys.readouterr().err


def test_a_draft_gives_the_same_text(story, capsys):
    plain, drafted = (
        call(story, "Once upon", "--max-new-tokens", 12, *more)[1] for more in ([], ["--draft", story, "--gamma", 2])
    )
    assert plain == drafted and "100% of the draft's tokens kept" in capsys.readouterr().err


def test_our_checkpoints_and_hugging_face_folders(run_folder, tmp_path, monkeypatch):
    code, run_text = call(run_folder, "abc", "--tokenizer", "bytes", "--max-new-tokens", 8)
    assert code == 0 and run_text.startswith("abc")
    config = ModelConfig(
        vocab_size=ByteTokenizer().vocab_size, family="gpt2", activation="gelu_tanh", bos_id=0, eos_id=1, **TINY
    )
    save_pretrained(tmp_path, config, build(config).init(jax.random.key(0)))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 1]}))
    monkeypatch.setattr("sys.stdin", io.StringIO("abc\nde\n"))  # two prompts, one per line
    code, text = call(tmp_path, "--tokenizer", "bytes", "--max-new-tokens", 8)
    assert code == 0 and text.startswith("abc") and "\nde" in text


def test_chats(run_folder):
    argv = (run_folder, "hi", "--tokenizer", "bytes", "--max-new-tokens", 4, "--chat", "--template", "chatml")
    code, text = call(*argv, "--system", "Be")
    assert code == 0 and not text.startswith("hi")


def test_one_line_errors(story, run_folder, tmp_path, capsys):
    cases = {
        "no folder at": [tmp_path / "nothing", "x"],
        "no tokenizer": [run_folder, "x"],
        "act only when sampling": [story, "x", "--top-p", 0.5],
        "exclude each other": [story, "x", "--beams", 2, "--draft", story],
        "--gamma acts with --draft": [story, "x", "--gamma", 2],
        "--seed acts when sampling": [story, "x", "--seed", 2],
        "act with --chat": [story, "x", "--system", "y"],
        "no chat template": [story, "x", "--chat"],
        "has room for": [story, "x", "--max-new-tokens", 100000],
        "the tokenizer has": [run_folder, "x", "--tokenizer", story.with_name("tokenizer.bin")],
        "unknown precision": [story, "x", "--precision", "f7"],
    }
    for message, argv in cases.items():
        code, _ = call(*argv)
        error = capsys.readouterr().err
        assert code == 2 and error.startswith("error: ") and message in error and error.count("\n") == 1, error
