"""SentencePiece models: training (unigram and BPE) and use. See *SentencePiece*, arXiv:1808.06226."""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import sentencepiece

from .special_tokens import SpecialTokens
from .words import WordTable, byte_surface

_SPACE = "\u2581"


class SentencePieceTokenizer:
    """A SentencePiece model, with optional tokens added behind its vocabulary (T5's sentinels, chat marks)."""

    def __init__(self, model: bytes, added: Mapping[str, int] | None = None, chat_template: str | None = None):
        self._model = model
        self._processor = sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.added = dict(added or {})
        size = sp.vocab_size()
        beyond = sorted(i for i in self.added.values() if i >= size)
        if beyond != list(range(size, size + len(beyond))):
            raise ValueError(f"added tokens must follow the {size} pieces without a gap, got ids {beyond}")
        self._size = size
        self.vocab_size = size + len(beyond)
        self.bos_id, self.eos_id = _present(sp.bos_id()), _present(sp.eos_id())
        self.pad_id, self.unk_id = _present(sp.pad_id()), _present(sp.unk_id())
        control = {sp.id_to_piece(i): i for i in range(size) if sp.is_control(i)}
        self._special = SpecialTokens(control | self.added)
        unknown = [] if self.unk_id is None else [self.unk_id]
        self.special_ids = frozenset([*control.values(), *self.added.values(), *unknown])
        self.mask_id = self.id_of("<mask>")
        if self.mask_id is None:
            self.mask_id = self.id_of("[MASK]")
        self.chat_template = chat_template
        self._words: WordTable | None = None

    @classmethod
    def load(cls, path: str | Path) -> "SentencePieceTokenizer":
        """Read a `.model` file and the Hugging Face files beside it that add tokens or a chat template."""
        path = Path(path)
        try:
            processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as error:
            raise ValueError(f"{path} is not a SentencePiece model: {error}") from None
        added, template = _neighbours(path.parent, processor)
        return cls(path.read_bytes(), added, template)

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.model` and the small JSON files that Hugging Face keeps beside it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.model").write_bytes(self._model)
        roles = {"bos_token": self.bos_id, "eos_token": self.eos_id, "unk_token": self.unk_id}
        roles |= {"pad_token": self.pad_id, "mask_token": self.mask_id}
        special = {role: self.pieces([i])[0] for role, i in roles.items() if i is not None}
        config: dict = {"tokenizer_class": "LlamaTokenizer", "legacy": False, **special}
        if self.chat_template:
            config["chat_template"] = self.chat_template
        _write(folder / "tokenizer_config.json", config)
        _write(folder / "special_tokens_map.json", special)
        if self.added:
            _write(folder / "added_tokens.json", self.added)

    @property
    def fingerprint(self) -> str:
        added = json.dumps(sorted(self.added.items())).encode()
        return hashlib.sha256(self._model + added).hexdigest()

    def encode(self, text: str, *, bos: bool = False, eos: bool = False, specials: bool = True) -> list[int]:
        ids: list[int] = []
        for part, special in self._special.split(text, specials):
            ids += [special] if special is not None else self._processor.encode(part)
        return self._special.frame(ids, self.bos_id, self.eos_id, bos, eos)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        start = 0
        for part, special in self._special.split(text):
            if special is not None:
                ids.append(special)
                offsets.append((start, start + len(part)))
            else:
                found = self._processor.encode(part, return_type="offset_mapping")
                ids += found["ids"]
                offsets += [(start + a, start + b) for a, b in found["offsets"]]
            start += len(part)
        return ids, offsets

    def decode(self, ids, *, specials: bool = False) -> str:
        text: list[str] = []
        run: list[int] = []
        for i in map(int, ids):
            name = self._special.name(i)
            if name is None or (i < self._size and not specials):
                run.append(i)
                continue
            text.append(self._processor.decode(run))
            run = []
            if specials:
                text.append(name)
        return "".join(text) + (self._processor.decode(run) if run else "")

    def pieces(self, ids) -> list[str]:
        return [self._special.name(i) or self._processor.id_to_piece(i) for i in map(int, ids)]

    def id_of(self, piece: str) -> int | None:
        if piece in self._special.ids:
            return self._special.ids[piece]
        found = self._processor.piece_to_id(piece)
        return found if self._processor.id_to_piece(found) == piece else None

    def word_starts(self, ids) -> np.ndarray:
        if self._words is None:
            self._words = WordTable([self._surface(i) for i in range(self.vocab_size)], self.special_ids)
        return self._words.starts(ids)

    def _surface(self, i: int) -> str:
        if i < self._size and self._processor.is_byte(i):
            return byte_surface(int(self._processor.id_to_piece(i)[1:-1], 16))
        return self.pieces([i])[0].replace(_SPACE, " ")


def train_sentencepiece(
    texts: Iterable[str],
    vocab_size: int,
    *,
    kind: str = "unigram",
    special_tokens: Sequence[str] = (),
    sentinels: int = 0,
    character_coverage: float = 0.9995,
    seed_size: int = 1_000_000,
    max_text_length: int = 16_384,
    threads: int = 2,
) -> SentencePieceTokenizer:
    """Train a lossless model: identity normalisation, byte fallback, `decode(encode(x)) == x` for every text.

    Ids: pad 0, eos 1, unk 2, bos 3, then `special_tokens` (control tokens: chat marks, `<mask>`) and the sentinels
    `<extra_id_0>` .. `<extra_id_{sentinels-1}>` (user-defined: they survive decoding). Newlines and indentation may
    become pieces, so source code stays short. `texts` longer than `max_text_length` characters are cut for training.
    Raises ValueError for a kind other than unigram or bpe, no text, or a vocabulary that the text cannot fill.
    """
    if kind not in ("unigram", "bpe"):
        raise ValueError(f"unknown kind {kind!r}; have ['bpe', 'unigram']")
    pieces = (t[a : a + max_text_length] for t in texts for a in range(0, len(t), max_text_length))
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(pieces),
            model_writer=model,
            model_type=kind,
            vocab_size=vocab_size,
            byte_fallback=True,
            character_coverage=character_coverage,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            max_sentence_length=8 * max_text_length,
            seed_sentencepiece_size=seed_size,
            num_threads=threads,
            minloglevel=2,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=3,
            pad_piece="<pad>",
            control_symbols=list(special_tokens),
            user_defined_symbols=[f"<extra_id_{i}>" for i in range(sentinels)],
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else "no reason given"
        raise ValueError(f"SentencePiece could not train {vocab_size} {kind} pieces: {reason}") from None
    return SentencePieceTokenizer(model.getvalue())


def _present(i: int) -> int | None:
    return i if i >= 0 else None


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _neighbours(folder: Path, processor) -> tuple[dict[str, int], str | None]:
    """Tokens that the folder's JSON files add to the model, and its chat template."""
    size = processor.vocab_size()
    added: dict[str, int] = {}
    template = None
    if (folder / "added_tokens.json").is_file():
        added |= json.loads((folder / "added_tokens.json").read_text(encoding="utf-8"))
    if (folder / "tokenizer_config.json").is_file():
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        for i, token in config.get("added_tokens_decoder", {}).items():
            # Entries below `size` restate the model's own control pieces.
            if int(i) >= size:
                added[token["content"]] = int(i)
        if isinstance(config.get("chat_template"), str):
            template = config["chat_template"]
    if (folder / "chat_template.jinja").is_file():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    return added, template
