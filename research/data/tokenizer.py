"""One front door for tokenizers: `load_tokenizer(path)` finds out which kind a file or folder holds."""

import json
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Tokenizer(Protocol):
    """What every tokenizer of the project can do, whatever file it came from.

    `bos_id`, `eos_id`, `pad_id`, `unk_id` and `mask_id` are None where the tokenizer has no such token. `special_ids`
    are the ids that stand for no text of a document (control tokens); `decode` leaves them out unless asked.
    `fingerprint` is a sha256 of everything that decides the ids, so that two corpora can be compared.
    """

    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    pad_id: int | None
    unk_id: int | None
    mask_id: int | None
    special_ids: frozenset[int]
    chat_template: str | None

    @property
    def fingerprint(self) -> str: ...

    def encode(self, text: str, *, bos: bool = False, eos: bool = False, specials: bool = True) -> list[int]:
        """Ids of `text`; with `specials=False` the text of a control token is ordinary text (for corpora)."""

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids with the half-open range of characters of `text` behind each."""

    def decode(self, ids, *, specials: bool = False) -> str: ...

    def pieces(self, ids) -> list[str]: ...

    def id_of(self, piece: str) -> int | None:
        """The id of one vocabulary entry or special token, None when there is no such entry."""

    def word_starts(self, ids) -> np.ndarray:
        """Boolean array: which of `ids` begin a word (for whole-word masking)."""

    def save(self, folder: str | Path) -> None: ...


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Load any tokenizer: `"bytes"`, a file, or a folder as `save` or Hugging Face writes it.

    Known: `tokenizer.json`; SentencePiece `*.model`; GPT-2 `encoder.json` + `vocab.bpe` (or `vocab.json` +
    `merges.txt`); BERT `vocab.txt`; llama2.c `tokenizer.bin`; our `byte_tokenizer.json`. Raises ValueError for
    anything else, FileNotFoundError where nothing is.
    """
    from .byte_tokenizer import ByteTokenizer
    from .huggingface_tokenizer import from_gpt2_files, from_tokenizer_json, from_wordpiece
    from .llama2c_tokenizer import Llama2cTokenizer
    from .sentencepiece_tokenizer import SentencePieceTokenizer

    if str(path) == "bytes":
        return ByteTokenizer()
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no tokenizer at {path}: expected a file, a folder, or the word 'bytes'")
    kind, files = _detect(path)
    match kind:
        case "bytes":
            return ByteTokenizer.load(files[0])
        case "huggingface":
            return from_tokenizer_json(files[0])
        case "sentencepiece":
            return SentencePieceTokenizer.load(files[0])
        case "gpt2":
            return from_gpt2_files(files[0], files[1])
        case "wordpiece":
            return from_wordpiece(files[0])
        case _:
            return Llama2cTokenizer.load(files[0])


def _detect(path: Path) -> tuple[str, list[Path]]:
    """The kind of tokenizer at `path` and the files it is made of."""
    if path.is_dir():
        return _detect_folder(path)
    if path.suffix == ".model":
        return "sentencepiece", [path]
    if path.suffix == ".bin":
        return "llama2c", [path]
    if path.suffix in (".bpe", ".json") or path.name.endswith("merges.txt"):
        return _detect_json(path)
    if path.suffix == ".txt":
        return "wordpiece", [path]
    raise ValueError(f"{path}: unknown tokenizer file; expected .model, .json, .bpe, vocab.txt or .bin")


def _detect_folder(folder: Path) -> tuple[str, list[Path]]:
    names = ["byte_tokenizer.json", "tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"]
    for name in [*names, "encoder.json", "vocab.json", "vocab.txt", "tokenizer.bin"]:
        if (folder / name).is_file():
            return _detect(folder / name)
    models = sorted(folder.glob("*.model"))
    if len(models) == 1:
        return "sentencepiece", models
    held = sorted(p.name for p in folder.iterdir())[:12]
    raise ValueError(f"{folder} holds no tokenizer that is known (tokenizer.json, *.model, ...); it holds {held}")


def _detect_json(path: Path) -> tuple[str, list[Path]]:
    """A `tokenizer.json`, a byte tokenizer, or one of the two GPT-2 files beside its neighbour."""
    pairs = [("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")]
    for vocabulary, merges in pairs:
        for mine, other in ((vocabulary, merges), (merges, vocabulary)):
            if path.name.endswith(mine):
                stem = path.name[: -len(mine)]
                files = [path.with_name(stem + vocabulary), path.with_name(stem + merges)]
                if not path.with_name(stem + other).is_file():
                    raise FileNotFoundError(f"{path} needs {stem + other} beside it")
                return "gpt2", files
    if path.suffix != ".json":
        raise ValueError(f"{path}: expected a name that ends in vocab.bpe or merges.txt")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if isinstance(content, dict) and "model" in content:
        return "huggingface", [path]
    if isinstance(content, dict) and content.get("kind") == "bytes":
        return "bytes", [path]
    raise ValueError(f"{path} is JSON but no tokenizer.json (it has no 'model' entry)")
