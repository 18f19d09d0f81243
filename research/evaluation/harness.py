"""Any of our models for EleutherAI's LM evaluation harness: its tasks and prompts, our forward passes, no torch.

Requests are read and cut as the harness's own torch backend does it, so that its numbers are the same for the same
weights. See *Lessons from the Trenches on Reproducible Evaluation of Language Models*, Biderman et al.,
https://arxiv.org/abs/2405.14782. Needs the extra `harness`.
"""

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from research.core import tree
from research.core.names import meant
from research.core.types import Params
from research.data import chat
from research.data.corpus import ends
from research.data.huggingface_tokenizer import HuggingFaceTokenizer
from research.decoding import Sampling, generate, prepare
from research.decoding.prompts import has_encoder
from research.models import Model
from research.report.terminal import Steps
from research.weights.prompts import virtual_ids

from .journal import Journal
from .scored_rows import Row, score_rows

BATCHES = 16  # so many at a time: what a kill can lose
MOST_NEW = 256  # tokens of an answer where a task says nothing, as in the harness's own backend
KNOBS = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty")

Pair = tuple[list[int], list[int]]  # what is given, what is scored


def as_lm(model: Model, params: Params, tokenizer: Any, **options: Any) -> Any:
    """An `lm_eval.api.model.LM` to hand to `lm_eval.simple_evaluate`; options are those of `Backend`.

    Raises:
      ValueError: `lm_eval` is not installed, or a model that has no next token.
    """
    try:
        from lm_eval.api.model import LM
    except ImportError:
        raise ValueError("the LM evaluation harness is not installed: pip install 'lifecycle[harness]'") from None
    return type("HarnessModel", (Backend, LM), {})(model, params, tokenizer, **options)


class Backend:
    """What the harness asks of a model; `as_lm` makes it a subclass of the harness's LM.

    Answers are remembered by content: equal requests are computed once, and with `cache` (a file) once for good.

    Args:
      length: the most tokens of a request, else what the model takes. stop_tokens: end an answer besides the end token.
      add_bos_token: whether texts get a begin token; None: as the tokenizer does it.
      sampling: what all answers have in common, such as tokens that are never produced; requests set the rest.
    """

    def __init__(
        self,
        model: Model,
        params: Params,
        tokenizer: Any,
        *,
        name: str = "",
        batch_size: int = 16,
        length: int | None = None,
        stop_tokens: Sequence[int] = (),
        sampling: Sampling | None = None,
        add_bos_token: bool | None = None,
        cache: str | Path | None = None,
        console: Console | None = None,
    ):
        super().__init__()
        config = model.config
        if config.kind == "encoder" or config.head != "lm":
            raise ValueError(
                f"the harness needs a model that predicts the next token; given {config.kind} with head {config.head!r}"
            )
        self.virtual = virtual_ids(params)
        room = config.max_length - len(self.virtual)
        if length is not None and not 1 <= length <= room:
            raise ValueError(f"length={length} does not fit the model, which takes 1 to {room} tokens")
        self.model, self.params, self.tokenizer = model, prepare(model, params), tokenizer
        self.max_length, self.batch_size, self.console = length or room, batch_size, console
        end = [tokenizer.eos_id] if tokenizer.eos_id is not None else []
        self.stop_tokens = tuple(dict.fromkeys([*end, *stop_tokens]))
        self.sampling = sampling or Sampling()
        first = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
        if first is None:
            raise ValueError("the tokenizer has no begin and no end token: nothing predicts the first token of a text")
        self.prefix = first
        self.frame = _frame(model, tokenizer, add_bos_token)
        self.name = name
        made_by = {
            "weights": tree.fingerprint(params),
            "tokenizer": tokenizer.fingerprint,
            "precision": str(model.policy),
            "length": self.max_length,
            "around": self.frame,
            "stops": self.stop_tokens,
            "sampling": str(self.sampling),
        }
        self._journal = Journal(cache, made_by) if cache is not None else None
        self._known: dict[str, Any] = {k: r["answer"] for k, r in self._journal.rows.items()} if self._journal else {}

    # What the harness calls.

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(ln p, whether it is the greedy answer) of each (context, continuation)."""
        asked = [(self._key("loglikelihood", request.args), request.args) for request in requests]
        self._score("loglikelihood", asked, lambda args: [self._pair(*args)], disable_tqdm)
        found = [(float(nats), bool(greedy)) for nats, greedy in (self._known[key] for key, _ in asked)]
        for request, answer in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, answer)  # type: ignore[attr-defined]
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """ln p of each whole text, in windows that count each token once."""
        asked = [(self._key("loglikelihood_rolling", request.args), request.args) for request in requests]
        self._score(
            "rolling", asked, lambda args: rolling(self.prefix, self._encode(args[0]), self.max_length), disable_tqdm
        )
        return [float(self._known[key][0]) for key, _ in asked]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each context, up to one of the request's texts `until`."""
        times: Counter[str] = Counter()
        asked = []
        for request in requests:
            key = self._key("generate_until", request.args)
            times[key] += 1
            # An answer that is drawn is drawn anew each time that it is asked for.
            drawn = _settings(request.args[1])[0].temperature != 0
            asked.append((self._key(key, [times[key]]) if drawn else key, request.args))
        groups: dict[str, list[tuple[str, Any]]] = {}
        for key, args in {key: args for key, args in asked if key not in self._known}.items():
            groups.setdefault(json.dumps(args[1], sort_keys=True), []).append((key, args))
        with self._bar("generate_until", sum(map(len, groups.values())), disable_tqdm) as bar:
            for group in groups.values():
                for some in self._chunks(group, lambda args: len(self._encode(args[0]))):
                    self._remember({key: text for (key, _), text in zip(some, self._write(some), strict=True)})
                    if bar is not None:
                        bar.advance(len(some))
        return [self._known[key] for key, _ in asked]

    @property
    def tokenizer_name(self) -> str:
        """Names the tokenizer in the harness's own cache of requests."""
        return f"{self.name}-{self.tokenizer.fingerprint[:16]}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The tokenizer's chat template if it is to be used, for the record of a run."""
        return self.tokenizer.chat_template if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The messages through the tokenizer's chat template; without a generation prompt the last one stays open."""
        if not self.tokenizer.chat_template:
            raise ValueError("the tokenizer has no chat template; leave out apply_chat_template")
        text = chat.render(
            self.tokenizer.chat_template,
            chat_history,
            add_generation_prompt=add_generation_prompt,
            **chat.special_variables(self.tokenizer),
        ).text
        if add_generation_prompt:
            return text
        last = chat_history[-1]["content"].strip()
        return text[: text.rindex(last) + len(last)]

    # How it is answered.

    def _score(self, what: str, asked: list[tuple[str, Any]], pairs: Callable[[Any], list[Pair]], quiet: bool) -> None:
        """Adds (Σ ln p, greedy) of every request whose answer is not known yet."""
        new = [(key, pairs(args)) for key, args in {k: a for k, a in asked if k not in self._known}.items()]
        with self._bar(what, len(new), quiet) as bar:
            for some in self._chunks(new, lambda found: max((len(a) + len(b) for a, b in found), default=0)):
                rows = [[self._row(*pair) for pair in found] for _, found in some]
                flat = [row for of_one in rows for row in of_one]
                nats, greedy = score_rows(
                    self.model,
                    self.params,
                    flat,
                    length=self.max_length,
                    batch_size=self.batch_size,
                    virtual=self.virtual,
                )
                answers, at = {}, 0
                for (key, _), of_one in zip(some, rows, strict=True):
                    mine = slice(at, at + len(of_one))
                    answers[key], at = [-float(nats[mine].sum()), bool(greedy[mine].all())], mine.stop
                self._remember(answers)
                if bar is not None:
                    bar.advance(len(some))

    def _write(self, asked: Sequence[tuple[str, Any]]) -> list[str]:
        """Answers of requests with the same settings."""
        knobs, until, most = _settings(asked[0][1][1])
        room = self.max_length if has_encoder(self.model) else self.max_length - most
        if room < 1:
            raise ValueError(f"{most} new tokens leave no room for a prompt in a model of {self.max_length} tokens")
        prompts = [self._encode(args[0])[-room:] or [self.prefix] for _, args in asked]
        texts: list[str] = []
        for first in range(0, len(prompts), self.batch_size):
            some = prompts[first : first + self.batch_size]
            filled = [*some, *[some[-1]] * (self.batch_size - len(some))]  # full batches only: one shape
            seeds = [zlib.crc32(key.encode()) for key, _ in asked[first : first + self.batch_size]]
            out = generate(
                self.model,
                self.params,
                filled,
                max_new_tokens=most,
                sampling=replace(self.sampling, **{name: getattr(knobs, name) for name in KNOBS}),
                stop_tokens=self.stop_tokens,
                stop_strings=until,
                tokenizer=self.tokenizer,
                seeds=[*seeds, *[0] * (len(filled) - len(some))],
                logprobs=False,
            )
            # The new tokens by themselves, as the torch backend decodes them, not as a continuation of the prompt.
            texts += [_cut(self.tokenizer.decode(out.ids(i)), until) for i in range(len(some))]
        return texts

    def _pair(self, context: str, continuation: str) -> Pair:
        """Ids of both; blanks at the end of the context go to the continuation, where most tokenizers have them."""
        if not context:
            scored = self.tokenizer.encode(continuation)
            given, scored = ([self.prefix], scored) if scored[:1] != [self.prefix] else (scored[:1], scored[1:])
        else:
            kept = context.rstrip()
            continuation = context[len(kept) :] + continuation
            given = self._encode(kept)
            if has_encoder(self.model):
                scored = self.tokenizer.encode(continuation)
            else:
                scored = self._encode(kept + continuation)[len(given) :]
        if not given or not 0 < len(scored) <= self.max_length:
            raise ValueError(
                f"context {context!r:.60} and continuation {continuation!r:.60} give {len(given)} and {len(scored)} "
                f"tokens; at least one of each is needed, and at most {self.max_length} of the continuation"
            )
        return given, scored

    def _row(self, given: list[int], scored: list[int]) -> Row:
        """One forward pass; what does not fit is cut from the left."""
        if has_encoder(self.model):
            start = self.model.config.decoder_start_id
            return Row([start, *scored[:-1]], scored, 0, given[-self.max_length :])
        ids = [*given, *scored][-(self.max_length + 1) :]
        return Row(ids[:-1], ids[1:], len(ids) - 1 - len(scored))

    def _encode(self, text: str) -> list[int]:
        """Ids with the tokens that the tokenizer puts around a text, unless the text already begins with its first."""
        ids = self.tokenizer.encode(text)
        lead, tail = self.frame
        return ids if ids[:1] == [self.prefix] else [*lead, *ids, *tail]

    def _key(self, kind: str, args: Iterable[Any]) -> str:
        return hashlib.sha256(json.dumps([kind, *args], sort_keys=True).encode()).hexdigest()

    def _chunks(self, asked: list[tuple[str, Any]], size: Callable[[Any], int]) -> list[list[tuple[str, Any]]]:
        """The requests, longest first, equal ones side by side, in the portions that are remembered together."""
        asked = sorted(asked, key=lambda pair: (-size(pair[1]), repr(pair[1])))
        step = BATCHES * self.batch_size
        return [asked[i : i + step] for i in range(0, len(asked), step)]

    def _remember(self, answers: Mapping[str, Any]) -> None:
        self._known.update(answers)
        if self._journal is not None:
            self._journal.add({"key": key, "answer": answer} for key, answer in answers.items())

    def _bar(self, what: str, total: int, quiet: bool) -> Any:
        return (
            nullcontext()
            if quiet or self.console is None
            else Steps(what, total, unit="requests", console=self.console)
        )


def rolling(prefix: int, ids: Sequence[int], length: int) -> list[Pair]:
    """A text in windows of `length` that follow on each other; the last one is full too, with more context."""
    whole, scored, pairs = [prefix, *ids], 0, []
    while scored < len(ids):
        end = min(scored + length, len(ids))
        start = max(end - length, 0)
        pairs.append((whole[start : scored + 1], whole[scored + 1 : end + 1]))
        scored = end
    return pairs


def _frame(model: Model, tokenizer: Any, add_bos_token: bool | None) -> tuple[list[int], list[int]]:
    """The ids that stand before and behind every text."""
    if add_bos_token is not None:
        if add_bos_token and tokenizer.bos_id is None:
            raise ValueError("add_bos_token=True, but the tokenizer has no begin token")
        return [tokenizer.bos_id] * add_bos_token, []
    if isinstance(tokenizer, HuggingFaceTokenizer):  # its own post-processor says
        bare = tokenizer.tokenizer.encode("a", add_special_tokens=False).ids
        full = tokenizer.tokenizer.encode("a").ids
        at = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        return full[:at], full[at + len(bare) :]
    bos, eos = ends(tokenizer, None, None)
    return [tokenizer.bos_id] * bos, [tokenizer.eos_id] * (eos and has_encoder(model))


def _settings(given: Mapping[str, Any]) -> tuple[Sampling, tuple[str, ...], int]:
    """(sampling, texts that end an answer, most new tokens) of a request's generation settings."""
    from lm_eval.models.utils import normalize_gen_kwargs

    values = dict(normalize_gen_kwargs(dict(given), MOST_NEW))
    known = sorted([*KNOBS, "do_sample", "until", "max_gen_toks"])
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"unknown generation setting {unknown[0]!r}{meant(unknown[0], known)}; have {known}")
    until = tuple(text for text in values["until"] if text)
    knobs = {name: values[name] for name in KNOBS if values.get(name) is not None}
    if not values["do_sample"]:
        knobs = {name: value for name, value in knobs.items() if name == "repetition_penalty"}
    return Sampling(**knobs), until, values["max_gen_toks"]


def _cut(text: str, until: Sequence[str]) -> str:
    """The text before the first of the texts that end it."""
    return text[: min((at for at in (text.find(stop) for stop in until) if at >= 0), default=len(text))]
