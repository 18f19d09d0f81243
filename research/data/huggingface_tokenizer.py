"""Tokenizers of the `tokenizers` library: `tokenizer.json`, GPT-2's two BPE files, BERT's `vocab.txt`."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from .special_tokens import SpecialTokens
from .words import WordTable, byte_surface

# Which names a role may have in tokenizer_config.json, in order; BERT calls its ends [CLS] and [SEP].
_ROLES = {
    "bos": ("bos_token", "cls_token"),
    "eos": ("eos_token", "sep_token"),
    "pad": ("pad_token",),
    "unk": ("unk_token",),
    "mask": ("mask_token",),
}


class HuggingFaceTokenizer:
    """A `tokenizers.Tokenizer` with the roles of its special tokens (`config` as in tokenizer_config.json)."""

    def __init__(
        self, tokenizer: tokenizers.Tokenizer, config: Mapping | None = None, chat_template: str | None = None
    ):
        # A saved tokenizer.json may cut and pad; both belong to the batch, not to the tokenizer.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.tokenizer = tokenizer
        self.config = dict(config or {})
        self.vocab_size = tokenizer.get_vocab_size(with_added_tokens=True)
        largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        # Vocabularies with holes exist: the table of embeddings must reach the largest id.
        self.vocab_size = max(self.vocab_size, largest + 1)
        added = tokenizer.get_added_tokens_decoder()
        self.special_ids = frozenset(i for i, token in added.items() if token.special)
        self.bos_id, self.eos_id = self._role("bos"), self._role("eos")
        self.pad_id, self.unk_id, self.mask_id = self._role("pad"), self._role("unk"), self._role("mask")
        self.chat_template = chat_template
        self._words: WordTable | None = None

    def _role(self, role: str) -> int | None:
        for name in _ROLES[role]:
            token = self.config.get(name)
            text = token["content"] if isinstance(token, Mapping) else token
            if text is not None:
                return self.tokenizer.token_to_id(text)
        return None

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json, special_tokens_map.json and the chat template."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(str(folder / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **self.config}
        # The file of its own is where current versions of the Hugging Face libraries look.
        config.pop("chat_template", None)
        _write(folder / "tokenizer_config.json", config)
        roles = {name: config[name] for names in _ROLES.values() for name in names if config.get(name) is not None}
        _write(folder / "special_tokens_map.json", roles)
        if self.chat_template:
            (folder / "chat_template.jinja").write_text(self.chat_template, encoding="utf-8")

    def encode(self, text: str, *, bos: bool = False, eos: bool = False, specials: bool = True) -> list[int]:
        self.tokenizer.encode_special_tokens = not specials
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return SpecialTokens.frame(ids, self.bos_id, self.eos_id, bos, eos)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        self.tokenizer.encode_special_tokens = False
        found = self.tokenizer.encode(text, add_special_tokens=False)
        return found.ids, found.offsets

    def decode(self, ids, *, specials: bool = False) -> str:
        return self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=not specials)

    def pieces(self, ids) -> list[str]:
        return [self.tokenizer.id_to_token(int(i)) or f"<{int(i)}>" for i in ids]

    def id_of(self, piece: str) -> int | None:
        return self.tokenizer.token_to_id(piece)

    def word_starts(self, ids) -> np.ndarray:
        if isinstance(self.tokenizer.model, models.WordPiece):
            prefix = self.tokenizer.model.continuing_subword_prefix
            return np.array([not p.startswith(prefix) for p in self.pieces(ids)], bool)
        if self._words is None:
            surfaces = [_surface(p) for p in self.pieces(range(self.vocab_size))]
            self._words = WordTable(surfaces, self.special_ids)
        return self._words.starts(ids)


def from_tokenizer_json(path: str | Path) -> HuggingFaceTokenizer:
    """Load `tokenizer.json` with tokenizer_config.json, special_tokens_map.json and chat template beside it."""
    path = Path(path)
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{path} is not a tokenizer.json that can be read: {error}") from None
    config: dict = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (path.parent / name).is_file():
            config |= json.loads((path.parent / name).read_text(encoding="utf-8"))
    template = config.get("chat_template")
    if isinstance(template, list):  # several named templates: the one called default is the chat
        template = next((t["template"] for t in template if t["name"] == "default"), None)
    if (path.parent / "chat_template.jinja").is_file():
        template = (path.parent / "chat_template.jinja").read_text(encoding="utf-8")
    return HuggingFaceTokenizer(tokenizer, config, template)


def from_gpt2_files(vocabulary: str | Path, merges: str | Path) -> HuggingFaceTokenizer:
    """GPT-2's byte-level BPE from `encoder.json` and `vocab.bpe`; `<|endoftext|>` begins and ends texts."""
    vocab = json.loads(Path(vocabulary).read_text(encoding="utf-8"))
    lines = Path(merges).read_text(encoding="utf-8").split("\n")
    lines = [line for line in lines if line and not line.startswith("#version")]
    wrong = [line for line in lines if line.count(" ") != 1]
    if wrong:
        raise ValueError(f"{merges}: expected two pieces per line, got {wrong[0]!r}")
    pairs = [(line.split(" ")[0], line.split(" ")[1]) for line in lines]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    roles = ["bos_token", "eos_token", "unk_token"] if end in vocab else []
    if roles:
        tokenizer.add_special_tokens([AddedToken(end, special=True, normalized=False)])
    config = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False, "model_max_length": 1024}
    return HuggingFaceTokenizer(tokenizer, config | dict.fromkeys(roles, end))


def from_wordpiece(path: str | Path, *, lowercase: bool | None = None) -> HuggingFaceTokenizer:
    """BERT's WordPiece from `vocab.txt`; lower-cased when the file says uncased or holds no capital letter."""
    words = Path(path).read_text(encoding="utf-8").splitlines()
    vocab = {word: i for i, word in enumerate(words)}
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    special |= {"pad_token": "[PAD]", "mask_token": "[MASK]"}
    special = {role: token for role, token in special.items() if token in vocab}
    if "[UNK]" not in vocab:
        raise ValueError(f"{path} has no [UNK] entry: not a WordPiece vocabulary")
    if lowercase is None:
        plain = (w for w in words if not (w.startswith("[") and w.endswith("]")))
        lowercase = not any(w != w.lower() for w in plain)
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special.values()])
    return HuggingFaceTokenizer(tokenizer, {"tokenizer_class": "BertTokenizer", "do_lower_case": lowercase, **special})


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _byte_characters() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes: printable Latin-1 stays, the rest moves up from U+0100."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [b for b in range(256) if b not in kept]
    return {chr(b): b for b in kept} | {chr(256 + n): b for n, b in enumerate(moved)}


_BYTES = _byte_characters()


def _surface(piece: str) -> str:
    """The text of a piece: byte-level stand-ins and SentencePiece's space mark read back."""
    if piece.startswith("<0x") and piece.endswith(">") and len(piece) == 6:
        return byte_surface(int(piece[1:-1], 16))
    if all(c in _BYTES for c in piece):
        return bytes(_BYTES[c] for c in piece).decode("utf-8", errors="replace")
    return piece.replace("\u2581", " ")
