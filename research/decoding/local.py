"""A model in this process behind the protocol that applications know."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax

from research.apps.calls import read_calls
from research.apps.protocol import DEFAULTS, Options, Prompt, Reply, Token, Usage
from research.core.types import Params
from research.data.stream import StreamDecoder
from research.decoding.generate import generate, pieces, prepare
from research.decoding.prompts import context, has_encoder, shared_width
from research.decoding.reading import read_prompt
from research.decoding.result import Generation
from research.decoding.sample import Sampling
from research.weights.prefix import prefix_length
from research.weights.prompts import virtual_ids


class LocalModel:
    """Any decoder or encoder-decoder of `research.models`, as an `apps.protocol.LanguageModel`.

    Prompts are read in batches of one, two, four, ... up to `batch_size` rows, filled up with copies: few programs are
    compiled. A soft prompt or prefix in the weights takes its room in the window.

    Args:
      stops: ids that end a text; default the tokenizer's end token. template: for chats; default the tokenizer's own.
      forced: `forced_bos` and `forced_eos` of `Sampling`, for models that begin or end with a token of their own.

    Raises:
      ValueError: an encoder alone.
    """

    def __init__(
        self,
        model: Any,
        params: Params,
        tokenizer: Any,
        *,
        name: str = "local",
        stops: Sequence[int] | None = None,
        template: str | None = None,
        forced: Mapping[str, int] = MappingProxyType({}),
        batch_size: int = 16,
    ):
        if model.config.kind == "encoder":
            raise ValueError("an encoder alone produces no text: expected a decoder or an encoder-decoder model")
        self.name, self.batch_size = name, batch_size
        self._model, self._params, self._tokenizer = model, prepare(model, params), tokenizer
        self._template = template if template is not None else tokenizer.chat_template
        end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
        self._stops = end if stops is None else list(stops)
        unspoken = range(tokenizer.vocab_size, model.config.vocab_size)  # rows that stand for no token
        self._fixed: dict[str, Any] = {"suppress": unspoken, **forced}
        limit = context(model)
        taken = len(virtual_ids(params)) + prefix_length(params)
        self.window = None if limit is None else limit - taken

    def count(self, prompt: Prompt, tools: Sequence[Mapping[str, Any]] = ()) -> int:
        return len(self._ids(prompt, tools))

    def write(self, prompts: Sequence[Prompt], options: Options = DEFAULTS) -> list[Reply]:
        ids = [self._ids(prompt, options.tools) for prompt in prompts]
        budgets = [self._budget(row, options) for row in ids]
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))  # alike lengths together: little padding
        replies: dict[int, Reply] = {}
        width = shared_width(ids, self.batch_size)
        for first in range(0, len(order), self.batch_size):
            some = order[first : first + self.batch_size]
            size = min(1 << (len(some) - 1).bit_length(), self.batch_size)
            filled = some + some[:1] * (size - len(some))
            out = generate(
                self._model,
                self._params,
                [ids[i] for i in filled],
                max_new_tokens=[budgets[i] for i in filled],
                sampling=self._sampling(options),
                stop_tokens=self._stops,
                stop_strings=options.stop,
                tokenizer=self._tokenizer,
                key=jax.random.key(options.seed),
                seeds=filled,
                logprobs=options.logprobs,
                width=width,
            )
            replies |= {i: self._reply(out, row, options) for row, i in enumerate(some)}
        return [replies[i] for i in range(len(ids))]

    def stream(self, prompt: Prompt, options: Options = DEFAULTS) -> Iterator[str]:
        ids = self._ids(prompt, options.tools)
        told = pieces(
            self._model,
            self._params,
            ids,
            max_new_tokens=self._budget(ids, options),
            sampling=self._sampling(options),
            stop_tokens=self._stops,
            stop_strings=options.stop,
            tokenizer=self._tokenizer,
            key=jax.random.key(options.seed),
        )
        return (piece.text for piece in told if piece.text)

    def _ids(self, prompt: Prompt, tools: Sequence[Any]) -> list[int]:
        return read_prompt(self._model, self._tokenizer, prompt, tools, self._template)

    def _budget(self, ids: Sequence[int], options: Options) -> int:
        """New tokens: what is asked for or, if that is less, what the window leaves."""
        if self.window is None:
            return options.max_new_tokens
        room = self.window - len(ids)
        if room < 1:
            raise ValueError(f"{self.name}: a prompt of {len(ids)} tokens leaves no room in a window of {self.window}")
        return min(options.max_new_tokens, room)

    def _sampling(self, options: Options) -> Sampling:
        top_p = options.top_p if options.temperature > 0 and options.top_p < 1 else None  # it acts only where one draws
        return Sampling(temperature=options.temperature, top_p=top_p, **self._fixed)

    def _reply(self, out: Generation, row: int, options: Options) -> Reply:
        text = (out.texts or [])[row]
        calls: tuple[Mapping[str, Any], ...] = ()
        finish = "length" if out.reasons[row] == "length" else "stop"
        if options.tools:
            text, calls = read_calls(text)
            finish = "tool_calls" if calls else finish
        ids = out.ids(row)
        usage = Usage(len(out.prompts[row]), len(ids))
        if out.logprobs is None:
            return Reply(text, finish, usage, (), calls)
        spoken = ids[:-1] if out.reasons[row] == "stop token" else ids
        lead = [] if has_encoder(self._model) else out.prompts[row]
        decoder = StreamDecoder(self._tokenizer, lead)
        texts = [decoder.push(i) for i in spoken]
        if texts:
            texts[-1] += decoder.flush()
        scores = out.logprobs[row].tolist()
        return Reply(text, finish, usage, tuple(map(Token, texts, scores)), calls)  # map ends with the texts
