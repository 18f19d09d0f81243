"""Prompts of any kind as a model reads them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.apps.calls import for_template
from research.apps.protocol import Message
from research.data.corpus import ends
from research.data.seq2seq import encode_source
from research.data.templates import encode_chat_prompt
from research.decoding.prompts import has_encoder


def encode_prompt(model: Any, tokenizer: Any, text: str) -> list[int]:
    """A prompt's ids as models are tuned: with the begin token, for an encoder with the end token too.

    An empty text is one token, the first of these that there is.
    """
    if has_encoder(model):
        ids = encode_source(text, tokenizer)
    else:
        ids = tokenizer.encode(text, bos=ends(tokenizer, None, None)[0])
    return ids or [i for i in (tokenizer.bos_id, tokenizer.eos_id) if i is not None][:1]


def read_prompt(
    model: Any,
    tokenizer: Any,
    prompt: str | Sequence[int] | Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    template: str | None = None,
) -> list[int]:
    """The ids of a text that is continued, of ids as they are, or of a chat that is answered.

    template: of chats; None: the tokenizer's own.

    Raises:
      ValueError: tools where the prompt has no place for them, a chat without a template, or a prompt of mixed kinds.
    """
    chat = not isinstance(prompt, str) and len(prompt) > 0 and all(isinstance(part, Mapping) for part in prompt)
    template = template if template is not None else tokenizer.chat_template
    if tools and not (chat and "tools" in (template or "")):
        where = "this chat template" if chat else "a text that is continued"
        raise ValueError(f"{where} has no place for tools; give a chat, to a model whose template names its tools")
    if isinstance(prompt, str):
        return encode_prompt(model, tokenizer, prompt)
    if chat:
        messages: Any = prompt
        return encode_chat_prompt(for_template(messages), tokenizer, template=template, tools=list(tools) or None)
    if not all(isinstance(part, int | np.integer) for part in prompt):
        raise ValueError("a prompt is a text, a list of token ids or a list of messages")
    return [int(part) for part in prompt]  # type: ignore[arg-type]
