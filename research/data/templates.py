"""Examples of every shape become token ids and a mask of what is to be predicted; where it cannot be known, an error.

Shapes (columns): `messages` or `conversations` (chat template), `prompt` + `completion`, Alpaca's `instruction`,
`input`, `output`, and plain `text`. The mask comes from the template's generation spans, else from an exact prefix:
the prompt's tokens must be the first tokens of the whole, one by one.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .chat import as_messages, has_generation, render, special_variables
from .corpus import ends
from .packing import Example

# The published Alpaca prompts (tatsu-lab/stanford_alpaca), with and without an input.
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
ALPACA_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)


def encode_text(text: str, tokenizer, *, bos: bool | None = None, eos: bool | None = None) -> Example:
    """Plain text: every token is predicted."""
    bos, eos = ends(tokenizer, bos, eos)
    ids = np.array(tokenizer.encode(text, bos=bos, eos=eos, specials=False), np.int32)
    return Example(ids, np.ones(len(ids), bool))


def encode_completion(
    prompt: str,
    completion: str,
    tokenizer,
    *,
    boundary: str = "joint",
    bos: bool | None = None,
    eos: bool | None = None,
) -> Example:
    """Only the completion, and the end token after it, is predicted.

    `boundary="joint"` encodes prompt + completion as one text and requires the prompt's own tokens as its prefix;
    `"separate"` encodes both by themselves, which is what generation from the encoded prompt continues.
    """
    if not completion:
        raise ValueError("the completion is empty: nothing to predict")
    bos, eos = ends(tokenizer, bos, eos)
    head = tokenizer.encode(prompt, bos=bos)
    if boundary == "separate":
        ids = head + tokenizer.encode(completion, eos=eos)
    elif boundary == "joint":
        ids = tokenizer.encode(prompt + completion, bos=bos, eos=eos)
        _require_prefix(head, ids, tokenizer, "use boundary='separate', or end the prompt between two tokens")
    else:
        raise ValueError(f"unknown boundary {boundary!r}; have ['joint', 'separate']")
    return Example(np.array(ids, np.int32), np.arange(len(ids)) >= len(head))


def encode_chat(messages: Sequence[Mapping], tokenizer, *, template: str | None = None, tools=None) -> Example:
    """A chat through its template; what the assistant says is predicted.

    The template is the one given, else the tokenizer's. With `{% generation %}` its spans decide; without, each
    assistant turn must extend the rendered prompt before it token by token. Raises ValueError where neither works.
    """
    template = template if template is not None else tokenizer.chat_template
    if template is None:
        raise ValueError("this tokenizer has no chat template; pass one (template=..., for example chat.CHATML)")
    if not any(m["role"] == "assistant" for m in messages):
        raise ValueError(f"no assistant message to learn from; roles are {[m['role'] for m in messages]}")
    variables: dict = special_variables(tokenizer)
    if not has_generation(template):
        return _chat_by_prefix(messages, tokenizer, template, tools, variables)
    text, spans = render(template, messages, tools=tools, **variables)
    if not spans:
        raise ValueError("the template's generation block never ran for these messages")
    ids, offsets = tokenizer.encode_with_offsets(text)
    return Example(np.array(ids, np.int32), _mask_from_spans(text, offsets, spans))


def encode_chat_prompt(messages: Sequence[Mapping], tokenizer, *, template: str | None = None, tools=None) -> list[int]:
    """Ids of a chat up to where the assistant is to speak (for generation)."""
    template = template if template is not None else tokenizer.chat_template
    if template is None:
        raise ValueError("this tokenizer has no chat template; pass one (template=..., for example chat.CHATML)")
    rendered = render(template, messages, add_generation_prompt=True, tools=tools, **special_variables(tokenizer))
    return tokenizer.encode(rendered.text)


def encode_example(example: Mapping, tokenizer, *, template: str | None = None, boundary: str = "joint") -> Example:
    """One example of any known shape; raises ValueError naming the columns if the shape is unknown."""
    if "messages" in example or "conversations" in example:
        return encode_chat(as_messages(example), tokenizer, template=template, tools=example.get("tools"))
    pair = as_pair(example)
    if pair is not None:
        return encode_completion(*pair, tokenizer, boundary=boundary)
    if "text" in example:
        return encode_text(example["text"], tokenizer)
    raise ValueError(
        f"unknown columns {sorted(example)}; expected messages, conversations, prompt + completion, "
        "instruction + output, or text"
    )


def as_pair(example: Mapping) -> tuple[str, str] | None:
    """(prompt, completion) of an example with these columns or Alpaca's; None where it has neither.

    Raises:
      ValueError: one of them is no text.
    """
    if "prompt" in example and "completion" in example:
        pair = example["prompt"], example["completion"]
    elif "instruction" in example and "output" in example:
        pair = alpaca_prompt(example), example["output"]
    else:
        return None
    if not all(isinstance(side, str) for side in pair):
        raise ValueError(f"prompt and completion must be texts, got {[type(side).__name__ for side in pair]}")
    return pair


def alpaca_prompt(example: Mapping) -> str:
    """The Alpaca prompt of an example, by whether it has an input."""
    form = ALPACA_WITH_INPUT if example.get("input") else ALPACA_WITHOUT_INPUT
    return form.format(instruction=example["instruction"], input=example.get("input", ""))


def encode_examples(
    examples: Iterable[Mapping],
    tokenizer,
    *,
    max_length: int | None = None,
    long: str = "error",
    template: str | None = None,
    boundary: str = "joint",
) -> list[Example]:
    """All examples; those over `max_length` raise, are cut at the end (`"truncate"`) or left out (`"drop"`).

    Cutting that leaves an example nothing to predict is an error that counts such examples. An error in one example
    names its number.
    """
    if long not in ("error", "truncate", "drop"):
        raise ValueError(f"unknown long={long!r}; have ['drop', 'error', 'truncate']")
    encoded: list[Example] = []
    for number, example in enumerate(examples):
        try:
            encoded.append(encode_example(example, tokenizer, template=template, boundary=boundary))
        except ValueError as error:
            raise ValueError(f"example {number}: {error}") from None
    if not encoded:
        raise ValueError("no examples were given")
    if max_length is None:
        return encoded
    too_long = [i for i, e in enumerate(encoded) if len(e.tokens) > max_length]
    if too_long and long == "error":
        longest = max(len(encoded[i].tokens) for i in too_long)
        raise ValueError(
            f"{len(too_long)} of {len(encoded)} examples exceed {max_length} tokens (the longest has {longest}); "
            "choose long='truncate' or 'drop', or a larger max_length"
        )
    if long == "drop":
        kept = [e for e in encoded if len(e.tokens) <= max_length]
        if not kept:
            raise ValueError(f"all {len(encoded)} examples exceed {max_length} tokens: none is left")
        return kept
    cut = [Example(e.tokens[:max_length], e.loss_mask[:max_length]) for e in encoded]
    # The first token is never a target, so a mask on it alone supervises nothing.
    lost = sum(not np.asarray(cut[i].loss_mask[1:]).any() for i in too_long)
    if lost:
        raise ValueError(
            f"truncation to {max_length} tokens removes every predicted token of {lost} of {len(encoded)} examples; "
            "raise max_length or choose long='drop'"
        )
    return cut


def _mask_from_spans(text: str, offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Tokens that begin inside a span; a token that runs across a span's start belongs to neither side: an error."""
    begin = np.array([a for a, _ in offsets], np.int64)
    end = np.array([b for _, b in offsets], np.int64)
    mask = np.zeros(len(offsets), bool)
    for a, b in spans:
        across = np.flatnonzero((begin < a) & (end > a))
        if across.size:
            i = int(across[0])
            raise ValueError(
                f"token {text[begin[i] : end[i]]!r} runs across the start of the assistant's text; "
                "let the template's prompt end between two tokens (a newline or a special token)"
            )
        mask |= (begin >= a) & (begin < b)
    return mask


def _chat_by_prefix(messages, tokenizer, template: str, tools, variables: dict) -> Example:
    """Mask by comparing the whole chat with the prompt before, and the chat up to, each assistant turn."""

    def ids_of(part: Sequence[Mapping], prompt: bool) -> list[int]:
        rendered = render(template, part, add_generation_prompt=prompt, tools=tools, **variables)
        return tokenizer.encode(rendered.text)

    whole = ids_of(messages, False)
    mask = np.zeros(len(whole), bool)
    advice = "mark the assistant's text with {% generation %} ... {% endgeneration %} in the template"
    for k, message in enumerate(messages):
        if message["role"] == "assistant":
            head, until = ids_of(messages[:k], True), ids_of(messages[: k + 1], False)
            _require_prefix(head, whole, tokenizer, advice)
            _require_prefix(until, whole, tokenizer, advice)
            mask[len(head) : len(until)] = True
    return Example(np.array(whole, np.int32), mask)


def _require_prefix(head: Sequence[int], whole: Sequence[int], tokenizer, advice: str) -> None:
    """Raise unless `whole` begins with `head`, naming the first token that differs."""
    for i, token in enumerate(head):
        if i >= len(whole) or whole[i] != token:
            mine = tokenizer.pieces([token])[0]
            theirs = tokenizer.pieces([whole[i]])[0] if i < len(whole) else "the end"
            raise ValueError(
                f"the prompt's tokens are no prefix of the whole: token {i} is {mine!r} alone but {theirs!r} "
                f"within; {advice}"
            )
