"""Chat templates: Jinja in a sandbox, with `{% generation %}` blocks marking what the assistant wrote."""

import datetime
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

# ChatML with the assistant's words, its end mark included, in a generation block.
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# ShareGPT's names of the speakers.
_SPEAKERS = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant"}


class Rendered(NamedTuple):
    """A chat as text, and the half-open character ranges that the assistant is to produce."""

    text: str
    spans: list[tuple[int, int]]


class _Generation(Extension):
    """`{% generation %} ... {% endgeneration %}`: its output, with a mark before and after."""

    tags = {"generation"}  # noqa: RUF012 (the name and type that jinja2 reads)

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark", [nodes.ContextReference()]), [], [], body).set_lineno(line)

    def _mark(self, context, caller):
        mark = context.get("_mark", "")
        return f"{mark}{caller()}{mark}"


def _raise(message):
    raise jinja2.TemplateError(message)


def _to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    # Jinja's own filter escapes HTML, which chat formats do not want.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache(maxsize=32)
def _compile(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    try:
        return environment.from_string(template)
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"chat template, line {error.lineno}: {error.message}") from None


def has_generation(template: str) -> bool:
    """Whether the template marks the assistant's words itself."""
    return "endgeneration" in template


def render(
    template: str, messages: Sequence[Mapping], *, add_generation_prompt: bool = False, tools=None, **variables
) -> Rendered:
    """Fill in a chat template; `variables` are its other names (`bos_token`, `eos_token`, ...).

    Raises ValueError for a template that cannot be read, or that refuses the messages (`raise_exception`).
    """
    # A mark that the chat does not contain, so that no message can pose as the assistant.
    content = json.dumps([messages, tools, variables], ensure_ascii=False, default=str)
    number = 0
    while (mark := f"\ue000{number}\ue001") in content:
        number += 1
    try:
        marked = _compile(template).render(
            messages=messages, tools=tools, add_generation_prompt=add_generation_prompt, _mark=mark, **variables
        )
    except (jinja2.TemplateError, TypeError, KeyError) as error:
        raise ValueError(f"the chat template refused the messages: {error}") from None
    parts = marked.split(mark)
    spans, text = [], ""
    for i, part in enumerate(parts):
        if i % 2:
            spans.append((len(text), len(text) + len(part)))
        text += part
    return Rendered(text, [(a, b) for a, b in spans if a < b])


def special_variables(tokenizer) -> dict[str, str]:
    """`bos_token`, `eos_token`, ... as templates expect them; absent ones are empty text."""
    roles = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id, "pad_token": tokenizer.pad_id}
    roles["unk_token"] = tokenizer.unk_id
    return {name: tokenizer.pieces([i])[0] if i is not None else "" for name, i in roles.items()}


def as_messages(example: Mapping) -> list[dict]:
    """Messages `{role, content}` from `messages`, or from ShareGPT's `conversations` `{from, value}`.

    Raises ValueError for a message without role or content.
    """
    if "messages" in example:
        messages = [dict(m) for m in example["messages"]]
    else:
        messages = [
            {"role": _SPEAKERS.get(m.get("from"), m.get("from")), "content": m.get("value")}
            for m in example["conversations"]
        ]
    for i, message in enumerate(messages):
        if not isinstance(message.get("role"), str):
            raise ValueError(f"message {i} has no role; it has {sorted(message)}")
        if message.get("content") is None and "tool_calls" not in message:
            raise ValueError(f"message {i} ({message['role']}) has no content; it has {sorted(message)}")
    return messages
