"""What may be asked at each address, as JSON Schema: requests are held to it, and the OpenAPI document shows it."""

from collections.abc import Sequence
from typing import Any

from .limits import Limits

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
NOTHING: Schema = {"type": "null"}
ID: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
IDS: Schema = {"type": "array", "minItems": 1, "items": ID}

# Known to OpenAI's clients and not served: only the value that changes nothing is taken.
NEUTRAL_OF_BOTH = {"presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}}
NEUTRAL_COMPLETION = NEUTRAL_OF_BOTH | {"best_of": 1, "suffix": ""}
NEUTRAL_CHAT = NEUTRAL_OF_BOTH | {
    "response_format": {"type": "text"},
    "parallel_tool_calls": True,
    "store": False,
    "service_tier": "auto",
    "modalities": ["text"],
}


def schemas(limits: Limits) -> dict[str, Schema]:
    """The schema of each kind of request, by name."""
    return {"Completion": completion(limits), "ChatCompletion": chat(limits), "Embedding": embedding(limits)}


def completion(limits: Limits) -> Schema:
    """/v1/completions."""
    several = {"type": "array", "minItems": 1, "maxItems": limits.choices}
    prompt = {
        "anyOf": [TEXT, several | {"items": TEXT}, IDS, several | {"items": IDS}],
        "description": f"a text, token ids, or a list of 1 to {limits.choices} of either",
    }
    return _object(
        {
            "prompt": prompt,
            "max_tokens": _tokens(limits, 0) | {"default": 16},
            "logprobs": {"type": "integer", "minimum": 0, "maximum": 5},
            "echo": FLAG,
        }
        | _sampling(limits)
        | _neutral(NEUTRAL_COMPLETION),
        required=("model", "prompt"),
    )


def chat(limits: Limits) -> Schema:
    """/v1/chat/completions."""
    return _object(
        {
            "messages": {"type": "array", "minItems": 1, "maxItems": 2048, "items": _message()},
            "max_tokens": _tokens(limits, 1),
            "max_completion_tokens": _tokens(limits, 1),
            "logprobs": FLAG,
            "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
            "tools": {"type": "array", "maxItems": 128, "items": _tool()},
            "tool_choice": {
                "enum": ["auto", "none"],
                "description": '"auto" or "none": nothing here can force a model to call a tool',
            },
        }
        | _sampling(limits)
        | _neutral(NEUTRAL_CHAT),
        required=("model", "messages"),
    )


def embedding(limits: Limits) -> Schema:
    """/v1/embeddings."""
    texts = {"type": "array", "minItems": 1, "maxItems": limits.texts, "items": TEXT}
    return _object(
        {
            "model": TEXT,
            "input": {"anyOf": [TEXT, texts], "description": f"a text or a list of 1 to {limits.texts} texts"},
            "encoding_format": {"enum": ["float", "base64"], "default": "float"},
        },
        required=("model", "input"),
    )


def _sampling(limits: Limits) -> dict[str, Schema]:
    stop = {"type": "string", "minLength": 1}
    stops = {"type": "array", "maxItems": 16, "items": stop}
    return {
        "model": TEXT,
        "n": {"type": "integer", "minimum": 1, "maximum": limits.n, "default": 1},
        "temperature": {"type": "number", "minimum": 0, "maximum": 2, "default": 1},
        "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 1},
        "top_k": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1, "default": 0},
        "min_p": {"type": "number", "minimum": 0, "maximum": 1, "default": 0},
        "repetition_penalty": {"type": "number", "exclusiveMinimum": 0, "maximum": 10, "default": 1},
        "stop": {"anyOf": [stop, stops], "description": "a text or a list of at most 16 texts, none of them empty"},
        "seed": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
        "stream": FLAG,
        "stream_options": _object({"include_usage": FLAG}),
    }


def _tokens(limits: Limits, least: int) -> Schema:
    most = {"maximum": limits.max_tokens} if limits.max_tokens else {}
    return {"type": "integer", "minimum": least, **most}


def _neutral(values: dict[str, Any]) -> dict[str, Schema]:
    return {name: {"const": value, "description": "not served"} for name, value in values.items()}


def _message() -> Schema:
    part = _object({"type": {"const": "text"}, "text": TEXT}, required=("type", "text"))
    function = _object({"name": TEXT, "arguments": TEXT}, required=("name", "arguments"))
    call = _object(
        {"id": TEXT, "type": {"const": "function"}, "index": {"type": "integer"}, "function": function},
        required=("id", "function"),
    )
    # Besides: what clients send back of an answer, fields that are always empty here.
    empty = ("refusal", "audio", "annotations", "function_call")
    return _object(
        dict.fromkeys(empty, NOTHING)
        | {
            "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
            "content": {
                "anyOf": [TEXT, {"type": "array", "maxItems": 256, "items": part}, NOTHING],
                "description": "a text, or a list of parts of the type text",
            },
            "name": TEXT,
            "tool_call_id": TEXT,
            "tool_calls": {
                "anyOf": [{"type": "array", "maxItems": 128, "items": call}, NOTHING],
                "description": "a list of tool calls",
            },
        },
        required=("role",),
    )


def _tool() -> Schema:
    function = _object(
        {
            "name": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"},
            "description": TEXT,
            "parameters": {"type": "object"},
            "strict": {"enum": [False, None]},
        },
        required=("name",),
    )
    return _object({"type": {"const": "function"}, "function": function}, required=("type", "function"))


def _object(properties: dict[str, Schema], *, required: Sequence[str] = ()) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
