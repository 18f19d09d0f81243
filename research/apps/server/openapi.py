"""The server's own description, OpenAPI 3.1."""

from typing import Any

from .schema import Schema

ADDRESSES = {
    "/v1/models": ("get", "The models that may be asked", None),
    "/v1/models/{model}": ("get", "One of them", None),
    "/v1/completions": ("post", "Continues texts", "Completion"),
    "/v1/chat/completions": ("post", "Answers chats", "ChatCompletion"),
    "/v1/embeddings": ("post", "Texts as unit vectors", "Embedding"),
    "/health": ("get", "Whether it serves", None),
    "/metrics": ("get", "Counters and gauges in Prometheus' text format", None),
    "/openapi.json": ("get", "This document", None),
}
STREAMED = ("Completion", "ChatCompletion")
ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def document(schemas: dict[str, Schema], open_to_all: tuple[str, ...] | None) -> dict[str, Any]:
    """The document; `open_to_all` are the addresses that need no key, None where none does."""
    paths: dict[str, Any] = {}
    for address, (method, summary, schema) in ADDRESSES.items():
        told: dict[str, Any] = {"text/plain": {}} if address == "/metrics" else {"application/json": {}}
        if schema in STREAMED:
            told["text/event-stream"] = {}
        operation: dict[str, Any] = {
            "summary": summary,
            "responses": {"200": {"description": summary, "content": told}, "default": _named("responses", "Error")},
        }
        if schema is not None:
            content = {"application/json": {"schema": _named("schemas", schema)}}
            operation["requestBody"] = {"required": True, "content": content}
        if "{model}" in address:
            operation["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
        if open_to_all is not None and address not in open_to_all:
            operation["security"] = [{"key": []}]
        paths[address] = {method: operation}
    error = {"description": "What was wrong", "content": {"application/json": {"schema": _named("schemas", "Error")}}}
    components: dict[str, Any] = {"schemas": schemas | {"Error": ERROR}, "responses": {"Error": error}}
    if open_to_all is not None:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    about = {"title": "Lifecycle", "version": "1", "description": "OpenAI's protocol for the models of this project."}
    return {"openapi": "3.1.0", "info": about, "paths": paths, "components": components}


def _named(section: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{section}/{name}"}
