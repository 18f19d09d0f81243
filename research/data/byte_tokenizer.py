"""Bytes as tokens: id = byte + the number of special tokens (ByT5's layout: pad 0, eos 1, unk 2)."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .special_tokens import SpecialTokens
from .words import WordTable, byte_surface

_BYT5 = ("<pad>", "</s>", "<unk>")


class ByteTokenizer:
    """UTF-8 bytes shifted past the special tokens; lossless for every text. See *ByT5*, arXiv:2105.13626.

    `specials` come first (ids 0..), `extra` after the 256 bytes (sentinels, chat marks). `<s>` and `<mask>` are
    looked up by name for `bos_id` and `mask_id`.
    """

    def __init__(self, specials: Sequence[str] = _BYT5, extra: Sequence[str] = (), chat_template: str | None = None):
        names = [*specials, *extra]
        if len(set(names)) != len(names):
            raise ValueError(f"special tokens must differ, got {names}")
        self._leading, self._extra = tuple(specials), tuple(extra)
        self._offset = len(specials)
        ids = {name: i for i, name in enumerate(specials)}
        ids |= {name: self._offset + 256 + i for i, name in enumerate(extra)}
        self._special = SpecialTokens(ids)
        self.vocab_size = self._offset + 256 + len(extra)
        self.special_ids = frozenset(ids.values())
        self.pad_id, self.eos_id, self.unk_id = ids.get("<pad>"), ids.get("</s>"), ids.get("<unk>")
        self.bos_id, self.mask_id = ids.get("<s>"), ids.get("<mask>")
        self.chat_template = chat_template
        surfaces = [*specials, *(byte_surface(b) for b in range(256)), *extra]
        self._words = WordTable(surfaces, self.special_ids)

    @classmethod
    def load(cls, path: str | Path) -> "ByteTokenizer":
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls(content["specials"], content["extra"], content.get("chat_template"))

    def save(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content: dict = {"kind": "bytes", "specials": self._leading, "extra": self._extra}
        content["chat_template"] = self.chat_template
        (folder / "byte_tokenizer.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(["bytes", self._leading, self._extra]).encode()).hexdigest()

    def encode(self, text: str, *, bos: bool = False, eos: bool = False, specials: bool = True) -> list[int]:
        ids: list[int] = []
        for part, special in self._special.split(text, specials):
            ids += [special] if special is not None else [b + self._offset for b in part.encode("utf-8")]
        return self._special.frame(ids, self.bos_id if bos else None, self.eos_id if eos else None, bos, eos)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        start = 0
        for part, special in self._special.split(text, True):
            if special is not None:
                ids.append(special)
                offsets.append((start, start + len(part)))
            else:
                for i, character in enumerate(part):
                    coded = character.encode("utf-8")
                    ids += [b + self._offset for b in coded]
                    offsets += [(start + i, start + i + 1)] * len(coded)
            start += len(part)
        return ids, offsets

    def decode(self, ids, *, specials: bool = False) -> str:
        out = bytearray()
        for i in map(int, ids):
            name = self._special.name(i)
            if name is None:
                out.append(i - self._offset)
            elif specials:
                out += name.encode("utf-8")
        return out.decode("utf-8", errors="replace")

    def pieces(self, ids) -> list[str]:
        return [self._special.name(i) or f"<0x{i - self._offset:02X}>" for i in map(int, ids)]

    def id_of(self, piece: str) -> int | None:
        if piece in self._special.ids:
            return self._special.ids[piece]
        coded = piece.encode("utf-8")
        return coded[0] + self._offset if len(coded) == 1 else None

    def word_starts(self, ids) -> np.ndarray:
        return self._words.starts(ids)
