"""Random access to training rows: windows of a corpus, packed or padded examples, and rows changed on the way."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .corpus import TokenCorpus
from .packing import Example, Row, first_fit, pack_row, window


class WindowRows:
    """Rows of a corpus laid end to end: row i holds tokens i*length .. (i+1)*length of its shard (pre-training).

    Every token is in exactly one row; the last row of a shard is padded.
    """

    def __init__(self, corpus: TokenCorpus, length: int, *, pad_id: int = 0):
        self._corpus, self._length, self._pad_id = corpus, length, pad_id
        self._first = np.cumsum([0, *(-(-len(s.tokens) // length) for s in corpus.shards)])

    def __len__(self) -> int:
        return int(self._first[-1])

    def row(self, index: int, rng: np.random.Generator | None = None) -> Row:
        del rng
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        k = int(np.searchsorted(self._first, index, side="right")) - 1
        shard = self._corpus.shards[k]
        begin = (index - int(self._first[k])) * self._length
        return window(shard.tokens, shard.offsets[:-1], begin, self._length, self._pad_id)


class DocumentRows:
    """Rows of one document each, padded; a longer document goes on in further rows, each from position 0.

    The last token of a row predicts the first of the document's next one, so every pair is learned once.
    """

    def __init__(self, corpus: TokenCorpus, length: int, *, pad_id: int = 0):
        self._corpus, self._length, self._pad_id = corpus, length, pad_id
        self._first = np.cumsum([0, *(-(-int(n) // length) for n in corpus.lengths)])

    def __len__(self) -> int:
        return int(self._first[-1])

    def row(self, index: int, rng: np.random.Generator | None = None) -> Row:
        del rng
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        k = int(np.searchsorted(self._first, index, side="right")) - 1
        begin = (index - int(self._first[k])) * self._length
        return window(self._corpus.document(k), np.zeros(1, np.int64), begin, self._length, self._pad_id)


class PackedRows:
    """Examples packed by first fit, planned once from their lengths; a row is the same in every epoch (tuning)."""

    def __init__(self, examples: Sequence[Example], length: int, *, pad_id: int = 0):
        self._examples, self._length, self._pad_id = examples, length, pad_id
        self._plan = first_fit([len(e.tokens) for e in examples], length)

    def __len__(self) -> int:
        return len(self._plan)

    def row(self, index: int, rng: np.random.Generator | None = None) -> Row:
        del rng
        return pack_row([self._examples[i] for i in self._plan[index]], self._length, self._pad_id)


class PaddedRows:
    """One example per row, padded on the right."""

    def __init__(self, examples: Sequence[Example], length: int, *, pad_id: int = 0):
        self._examples, self._length, self._pad_id = examples, length, pad_id
        longest = max((len(e.tokens) for e in examples), default=0)
        if longest > length:
            raise ValueError(f"an example of {longest} tokens does not fit rows of {length}; truncate it first")

    def __len__(self) -> int:
        return len(self._examples)

    def row(self, index: int, rng: np.random.Generator | None = None) -> Row:
        del rng
        return pack_row([self._examples[index]], self._length, self._pad_id)


class ArrayRows:
    """Rows that lie in memory as one array [n, ...] for each name."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self.arrays = dict(arrays)
        sizes = {name: len(array) for name, array in self.arrays.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"arrays of rows need one length; given {sizes}")

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def row(self, index: int, rng: np.random.Generator | None = None) -> Row:
        del rng
        return {name: array[index] for name, array in self.arrays.items()}


class MappedRows:
    """Rows of another source through `function(row, rng) -> row` (corruption, prefix LM)."""

    def __init__(self, rows, function: Callable[[Row, np.random.Generator], Row]):
        self._rows, self._function = rows, function

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int, rng: np.random.Generator) -> Row:
        return self._function(self._rows.row(index, rng), rng)
