"""An agent in chat form: the model calls tools as OpenAI's protocol has it, and ends with an answer in words."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from .protocol import DEFAULTS, LanguageModel, Message, Options
from .tools import Tools
from .trace import BUDGET, LEFT_OUT, Budget, Step, Trace


def converse(
    model: LanguageModel,
    tools: Tools,
    messages: Sequence[Message],
    *,
    budget: Budget = BUDGET,
    options: Options = DEFAULTS,
    on_step: Callable[[Trace], None] | None = None,
) -> tuple[Trace, list[dict[str, Any]]]:
    """The run and the whole chat: after each message with calls stand the tools' answers, until one has none.

    Where the chat fills the window, the oldest answers of tools are left out of what the model reads, and the step's
    notes say so.

    messages: a chat that ends with what the user asks.

    Raises:
      ValueError: the chat does not fit into the window with the tools' descriptions.
    """
    chat = [dict(message) for message in messages]
    trace = Trace(model.name, str(chat[-1]["content"]))
    options = replace(options, max_new_tokens=budget.step_tokens, tools=tools.specifications)
    while not trace.ended:
        shown, notes = _fit(model, chat, options)
        if shown is None:
            if not trace.steps:
                raise ValueError(f"the chat and its tools do not fit into a window of {model.window}")
            trace.ended = "window"
            break
        (reply,) = model.write([shown], options)
        chat.append({"role": "assistant", "content": reply.text or None if reply.calls else reply.text})
        tokens = reply.usage.completion_tokens
        if not reply.calls:
            trace.finish(Step(reply.text, "", "", "", notes, tokens), reply.text)
        else:
            chat[-1]["tool_calls"] = list(reply.calls)
        for call in reply.calls:  # all are answered, also where the budget ends: a chat with an open call is refused
            name, argument = call["function"]["name"], call["function"]["arguments"]
            seen = tools.call(name, argument).text if name else f"Error: no JSON with name and arguments: {argument!r}"
            trace.add(Step(reply.text, name, argument, seen, notes, tokens), budget)
            chat.append({"role": "tool", "tool_call_id": call["id"], "content": trace.steps[-1].observation})
            notes, tokens = (), 0
        if on_step:
            on_step(trace)
    return trace, chat


def _fit(
    model: LanguageModel, chat: Sequence[dict[str, Any]], options: Options
) -> tuple[list[dict[str, Any]] | None, tuple[str, ...]]:
    """The chat as it fits into the window; None where it does not."""
    answers = [i for i, message in enumerate(chat) if message["role"] == "tool"]
    for left_out in range(len(answers) + 1):
        gone = set(answers[:left_out])
        shown = [{**message, "content": LEFT_OUT} if i in gone else message for i, message in enumerate(chat)]
        if model.window is None or model.count(shown, options.tools) + options.max_new_tokens <= model.window:
            return shown, (f"the first {left_out} answers of tools are left out",) * bool(left_out)
    return None, ()
