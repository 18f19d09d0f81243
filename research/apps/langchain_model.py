"""A model here as one of LangChain's chat models, so that its chains and agents run on it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from .protocol import DEFAULTS, LanguageModel, Options, Reply


def as_langchain(model: LanguageModel, options: Options = DEFAULTS) -> Any:
    """A `langchain_core.language_models.BaseChatModel` with tools, streaming, stop strings and usage.

    A call's `stop` and bound tools take the place of those in `options`; a reply with tools comes in one piece.
    """
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessageChunk, BaseMessage, convert_to_openai_messages
    from langchain_core.messages.tool import tool_call_chunk
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
    from langchain_core.utils.function_calling import convert_to_openai_tool

    def chosen(stop: list[str] | None, tools: Sequence[dict[str, Any]] = (), **others: Any) -> Options:
        if others:
            raise ValueError(f"unknown settings {sorted(others)}: give them as Options to as_langchain")
        return replace(options, stop=tuple(stop or options.stop), tools=tuple(tools or options.tools))

    class ProtocolChatModel(BaseChatModel):
        @property
        def _llm_type(self) -> str:
            return model.name

        def bind_tools(self, tools: Sequence[Any], *, tool_choice: str | None = None, **others: Any) -> Any:
            if tool_choice not in (None, "auto"):
                raise ValueError(f"the model chooses its tools itself: tool_choice is 'auto', given {tool_choice!r}")
            return self.bind(tools=[convert_to_openai_tool(one) for one in tools], **others)

        def _generate(
            self,
            messages: list[BaseMessage],
            stop: list[str] | None = None,
            run_manager: Any = None,
            **asked: Any,
        ) -> ChatResult:
            (reply,) = model.write([convert_to_openai_messages(messages)], chosen(stop, **asked))
            return ChatResult(generations=[ChatGeneration(message=_message(reply))])

        def _stream(
            self,
            messages: list[BaseMessage],
            stop: list[str] | None = None,
            run_manager: Any = None,
            **asked: Any,
        ) -> Iterator[ChatGenerationChunk]:
            told = chosen(stop, **asked)
            chat = convert_to_openai_messages(messages)
            if told.tools:
                (reply,) = model.write([chat], told)
                pairs = [(one["id"], one["function"]) for one in reply.calls]
                chunks = [
                    tool_call_chunk(name=called["name"], args=called["arguments"], id=id, index=i)
                    for i, (id, called) in enumerate(pairs)
                ]
                yield ChatGenerationChunk(message=AIMessageChunk(content=reply.text, tool_call_chunks=chunks))
                return
            for piece in model.stream(chat, told):
                chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
                if run_manager:
                    run_manager.on_llm_new_token(piece, chunk=chunk)
                yield chunk

    return ProtocolChatModel()


def _message(reply: Reply) -> Any:
    """The reply as LangChain's message; a call whose arguments are no JSON is one of its invalid ones."""
    from langchain_core.exceptions import OutputParserException
    from langchain_core.messages import AIMessage
    from langchain_core.output_parsers.openai_tools import make_invalid_tool_call, parse_tool_call

    good, bad = [], []
    for call in reply.calls:
        try:
            good.append(parse_tool_call(dict(call), return_id=True))
        except OutputParserException as error:
            bad.append(make_invalid_tool_call(dict(call), str(error)))
    read, written = reply.usage
    told: dict[str, Any] = {"finish_reason": reply.finish}
    if reply.tokens:
        told["logprobs"] = {"content": [token._asdict() for token in reply.tokens]}
    return AIMessage(
        content=reply.text,
        tool_calls=good,
        invalid_tool_calls=bad,
        usage_metadata={"input_tokens": read, "output_tokens": written, "total_tokens": read + written},
        response_metadata=told,
    )
