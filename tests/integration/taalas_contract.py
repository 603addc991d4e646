"""What HC1's published contract says of its own endpoints, as JSON Schema written from its facts, and
a checker of the few keywords that it takes."""


def nullable(schema):
    return {"anyOf": [schema, {"type": "null"}]}


STREAM_OPTIONS = {"type": "object",
                  "properties": {"include_usage": nullable({"type": "boolean"}),
                                 "include_obfuscation": nullable({"type": "boolean"})}}
OBJECTS = {"type": "array", "items": {"type": "object"}}
TEXT, FLAG = {"type": "string"}, {"type": "boolean"}
COUNT = {"type": "integer", "minimum": 0}

GENERATE_REQUEST = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        "prompt": OBJECTS,
        "min_output_tokens": COUNT,
        "max_output_tokens": COUNT,
        "topk": {"type": "integer", "minimum": 1, "maximum": 8},
        "model": TEXT,
        "stream": nullable(FLAG),
        "tools": nullable(OBJECTS),
        "tool_choice": nullable(TEXT),
        "logprobs": FLAG,
        "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
        "system_prompt_version": TEXT,
        "tool_name": TEXT,
        "context_for_tool": TEXT,
        "guided_json": nullable({"type": "object"}),
        "guided_regex": nullable(TEXT),
        "response_format": nullable({"type": "object"}),
        "metadata": nullable({"type": "object"}),
        "echo": FLAG,
        "stream_options": nullable(STREAM_OPTIONS),
        "stop": {"anyOf": [{"type": "array", "items": TEXT}, TEXT, {"type": "null"}]},
        "temperature": nullable({"type": "number", "minimum": 0, "maximum": 2}),
        "ignore_eos": FLAG,
    },
}
STOP = {"anyOf": [{"type": "array", "items": TEXT}, TEXT, {"type": "null"}]}
TEMPERATURE = {"type": "number", "minimum": 0, "maximum": 2}
TOP_P = nullable({"type": "number", "minimum": 0, "maximum": 1})
PENALTY = nullable({"type": "number", "minimum": -2, "maximum": 2})
V1_CHAT_REQUEST = {
    "type": "object",
    "required": ["model"],
    "properties": {
        "model": TEXT,
        "messages": {"type": "array", "items": {
            "type": "object", "required": ["role"],
            "properties": {"role": TEXT,
                           "content": {"anyOf": [TEXT, {"type": "array",
                                                        "items": {"type": "object"}}]}}}},
        "temperature": TEMPERATURE,
        "top_p": TOP_P,
        "n": nullable({"type": "integer", "minimum": 1}),
        "stream": nullable(FLAG),
        "stop": STOP,
        "max_tokens": nullable(COUNT),
        "max_completion_tokens": nullable(COUNT),
        "presence_penalty": PENALTY,
        "frequency_penalty": PENALTY,
        "logit_bias": nullable({"type": "object"}),
        "user": nullable(TEXT),
        "tools": nullable(OBJECTS),
        "tool_choice": nullable(TEXT),
        "logprobs": FLAG,
        "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
        "stream_options": nullable(STREAM_OPTIONS),
        "ignore_eos": FLAG,
    },
}
V1_COMPLETIONS_REQUEST = {
    "type": "object",
    "required": ["model", "prompt"],
    "properties": {
        "model": TEXT,
        "prompt": {"anyOf": [TEXT, {"type": "array", "items": TEXT},
                             {"type": "array", "items": {"type": "integer"}},
                             {"type": "array", "items": {"type": "array",
                                                         "items": {"type": "integer"}}}]},
        "stream": FLAG,
        "echo": nullable(FLAG),
        "max_tokens": COUNT,
        "stream_options": nullable(STREAM_OPTIONS),
        "logprobs": nullable({"type": "integer", "minimum": 0, "maximum": 5}),
        "temperature": TEMPERATURE,
        "stop": STOP,
        "top_p": TOP_P,
        "ignore_eos": FLAG,
    },
}
HEALTH = {"type": "object", "required": ["status", "queue_size", "current_adapter"],
          "properties": {"status": TEXT, "queue_size": {"type": "integer"}, "current_adapter": TEXT}}
VALIDATION_ERROR = {
    "type": "object",
    "required": ["detail"],
    "properties": {"detail": {"type": "array", "items": {
        "type": "object",
        "required": ["loc", "msg", "type"],
        "properties": {"loc": {"type": "array", "items": {"anyOf": [TEXT, {"type": "integer"}]}},
                       "msg": TEXT, "type": TEXT}}}},
}

TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def is_type(value, name):
    if name in ("integer", "number"):
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return not isinstance(value, bool) and (whole or
                                                (name == "number" and isinstance(value, float)))
    return isinstance(value, TYPES[name])


def check(value, schema, at="$"):
    """Raises AssertionError where `value` does not fit."""
    if "anyOf" in schema:
        assert any(fits(value, option) for option in schema["anyOf"]), f"{at}: {value!r}"
        return
    assert is_type(value, schema["type"]), f"{at}: {value!r} is no {schema['type']}"
    assert value >= schema["minimum"] if "minimum" in schema else True, f"{at}: {value} is too small"
    assert value <= schema["maximum"] if "maximum" in schema else True, f"{at}: {value} is too large"
    for name in schema.get("required", ()):
        assert name in value, f"{at}: {name} is missing"
    for name, inner in schema.get("properties", {}).items():
        if name in value:
            check(value[name], inner, f"{at}.{name}")
    if "items" in schema:
        for index, item in enumerate(value):
            check(item, schema["items"], f"{at}[{index}]")


def fits(value, schema):
    try:
        check(value, schema)
    except AssertionError:
        return False
    return True
