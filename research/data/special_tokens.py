"""Special tokens written in a text: finding them, and putting begin and end tokens around a list of ids."""

import re
from collections.abc import Iterator, Mapping


class SpecialTokens:
    """The strings that stand for one id each, and how a text falls apart at them."""

    def __init__(self, ids: Mapping[str, int]):
        self.ids = dict(ids)
        self._names = {i: name for name, i in self.ids.items()}
        # Longest first, so that <extra_id_10> is not read as <extra_id_1> and a rest.
        choices = "|".join(re.escape(name) for name in sorted(self.ids, key=len, reverse=True))
        self._pattern = re.compile(f"({choices})") if choices else None

    def name(self, i: int) -> str | None:
        return self._names.get(i)

    def split(self, text: str, specials: bool = True) -> Iterator[tuple[str, int | None]]:
        """Parts of `text` in order: (special token, its id) or (ordinary text, None)."""
        if not specials or self._pattern is None:
            if text:
                yield text, None
            return
        for part in self._pattern.split(text):
            if part:
                yield part, self.ids.get(part)

    @staticmethod
    def frame(ids: list[int], bos_id: int | None, eos_id: int | None, bos: bool, eos: bool) -> list[int]:
        """`ids` with the begin and end tokens asked for; an error if the tokenizer has none."""
        for asked, token, word in ((bos, bos_id, "begin"), (eos, eos_id, "end")):
            if asked and token is None:
                raise ValueError(f"this tokenizer has no {word}-of-text token, but {word[0]}os=True was given")
        head = [bos_id] if bos and bos_id is not None else []
        tail = [eos_id] if eos and eos_id is not None else []
        return head + ids + tail
