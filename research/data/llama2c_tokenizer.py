"""The `tokenizer.bin` of llama2.c: scored pieces, merged pair by pair, with bytes for what is left."""

import hashlib
import heapq
import re
import struct
from pathlib import Path

import numpy as np

from .special_tokens import SpecialTokens
from .words import WordTable, byte_surface

_BYTE = re.compile(rb"<0x([0-9A-F]{2})>\Z")


class Llama2cTokenizer:
    """Score-based BPE: of all neighbours that form a piece, the pair with the highest score merges first.

    Layout: unk 0, bos 1, eos 2, the 256 bytes at 3..258. A text gets a space in front, as the models were trained.
    """

    def __init__(self, pieces: list[bytes], scores: list[float], longest: int):
        if len(pieces) < 259:
            raise ValueError(f"expected at least 259 pieces (3 special, 256 bytes), got {len(pieces)}")
        self._pieces, self.scores, self._longest = pieces, scores, longest
        self.unk_id: int | None = 0
        self.bos_id: int | None = 1
        self.eos_id: int | None = 2
        self.pad_id: int | None = None
        self.mask_id: int | None = None
        self.vocab_size = len(pieces)
        self.special_ids = frozenset((0, 1, 2))
        self.chat_template: str | None = None
        self._special = SpecialTokens({"<s>": 1, "</s>": 2})
        self._ids: dict[bytes, int] = {}
        for i, piece in enumerate(pieces):
            self._ids.setdefault(piece, i)
        self._plain = [self._plain_bytes(i) for i in range(len(pieces))]
        surfaces = [byte_surface(p[0]) if len(p) == 1 else p.decode("utf-8", "replace") for p in self._plain]
        self._words = WordTable(surfaces, self.special_ids)

    @classmethod
    def load(cls, path: str | Path) -> "Llama2cTokenizer":
        """Read int32 longest piece, then (float32 score, int32 length, bytes) per piece to the end of the file."""
        data = Path(path).read_bytes()
        pieces: list[bytes] = []
        scores: list[float] = []
        try:
            (longest,) = struct.unpack_from("<i", data)
            at = 4
            while at < len(data):
                score, length = struct.unpack_from("<fi", data, at)
                at += 8
                if not 0 <= length <= len(data) - at:
                    raise struct.error(f"piece {len(pieces)} claims {length} bytes")
                pieces.append(data[at : at + length])
                scores.append(score)
                at += length
        except struct.error as error:
            raise ValueError(f"{path} is not a llama2.c tokenizer file: {error}") from None
        return cls(pieces, scores, longest)

    def save(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.bin").write_bytes(self._bytes())

    def _bytes(self) -> bytes:
        rows = (struct.pack("<fi", s, len(p)) + p for p, s in zip(self._pieces, self.scores, strict=True))
        return struct.pack("<i", self._longest) + b"".join(rows)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self._bytes()).hexdigest()

    def encode(self, text: str, *, bos: bool = False, eos: bool = False, specials: bool = True) -> list[int]:
        ids: list[int] = []
        for part, special in self._special.split(text, specials):
            ids += [special] if special is not None else self._merge(part)[0]
        return SpecialTokens.frame(ids, self.bos_id, self.eos_id, bos, eos)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        start = 0
        for part, special in self._special.split(text):
            found, ranges = ([special], [(0, len(part))]) if special is not None else self._merge(part)
            ids += found
            offsets += [(start + a, start + b) for a, b in ranges]
            start += len(part)
        return ids, offsets

    def _symbols(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """One id per character (or per byte of an unknown one), the space in front included."""
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for i, character in enumerate(" " + text, start=-1):
            coded = character.encode("utf-8")
            known = self._ids.get(coded)
            found = [known] if known is not None else [b + 3 for b in coded]
            ids += found
            offsets += [(max(i, 0), i + 1)] * len(found)
        return ids, offsets

    def _merge(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and character ranges: a heap of mergeable neighbours over a doubly linked list."""
        ids, offsets = self._symbols(text)
        n = len(ids)
        left, right = list(range(-1, n - 1)), [*range(1, n), -1]
        alive = [True] * n
        heap: list[tuple[float, int, int, int, int]] = []

        def offer(a: int, b: int) -> None:
            if a >= 0 and b >= 0:
                merged = self._ids.get(self._pieces[ids[a]] + self._pieces[ids[b]])
                if merged is not None:
                    heapq.heappush(heap, (-self.scores[merged], a, b, ids[a], ids[b]))

        for a in range(n - 1):
            offer(a, a + 1)
        while heap:
            _, a, b, was_a, was_b = heapq.heappop(heap)
            # An entry is stale when either side has merged with something else since.
            if not (alive[a] and alive[b] and right[a] == b and ids[a] == was_a and ids[b] == was_b):
                continue
            ids[a] = self._ids[self._pieces[was_a] + self._pieces[was_b]]
            offsets[a] = (offsets[a][0], offsets[b][1])
            alive[b] = False
            right[a] = right[b]
            if right[b] >= 0:
                left[right[b]] = a
            offer(left[a], a)
            offer(a, right[a])
        kept = [i for i in range(n) if alive[i]]
        return [ids[i] for i in kept], [offsets[i] for i in kept]

    def _plain_bytes(self, i: int) -> bytes:
        """The bytes that token `i` prints."""
        found = _BYTE.match(self._pieces[i])
        return bytes([int(found[1], 16)]) if found else self._pieces[i]

    def decode(self, ids, *, specials: bool = False) -> str:
        """Text of `ids`; the space that `encode` put in front is taken away again."""
        names = {1: b"<s>", 2: b"</s>", 0: b"<unk>"}
        out = bytearray()
        for i in map(int, ids):
            if i not in names:
                out += self._plain[i]
            elif specials:
                out += names[i]
        return bytes(out).removeprefix(b" ").decode("utf-8", errors="replace")

    def pieces(self, ids) -> list[str]:
        return [self._pieces[int(i)].decode("utf-8", "replace").strip("\n") or "\n" for i in ids]

    def id_of(self, piece: str) -> int | None:
        found = self._special.ids.get(piece)
        return found if found is not None else self._ids.get(piece.encode("utf-8"))

    def word_starts(self, ids) -> np.ndarray:
        return self._words.starts(ids)
