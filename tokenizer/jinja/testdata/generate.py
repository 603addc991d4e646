#!/usr/bin/python3
"""Writes golden.json: what Python's jinja2 makes of the templates here.

The environment is the one that chat templates are written for: the immutable sandbox, trim_blocks,
lstrip_blocks, loop controls, a `generation` tag, a `tojson` that does not escape HTML, and the
functions raise_exception and strftime_now. Needs python3-jinja2. Run it from this folder.
"""
import datetime
import json
import pathlib

import jinja2
import jinja2.ext
import jinja2.sandbox

NOW = 1735689600
HERE = pathlib.Path(__file__).parent


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_body")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def strftime_now(format):
        return datetime.datetime.utcfromtimestamp(NOW).strftime(format)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True,
        extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals.update(raise_exception=raise_exception, strftime_now=strftime_now)
    return env


VARIABLES = {
    "d": {"a": 1, "b": [1, 2], "c": {"d": {"e": "f"}}},
    "l": [1, 2, 3],
    "big": 123456789012345678901234567890,
    "f": 0.1,
    "fs": [1.0, 1e16, 1e-7, 123456.789, 5e-324, 1.7976931348623157e308, 1e20, 0.1 + 0.2],
    "u": "Ünïcödé ÇA ßTRASSE ǅ ﬁ ñ 中文 😀 don't 𝒳 ı",
}

# Templates that one line cannot hold: mostly white space around tags.
LAYOUTS = [
    "a\n{% if true %}\nb\n{% endif %}\nc\n",
    "a\n  {% if true %}  \n  b\n  {% endif %}\nc\n\n",
    "a \n  {%- if true -%}  \n  b\n  {%- endif -%}\n c",
    "a\n  {%+ if true +%}\n  b\n  {%+ endif +%}\nc",
    "  {# comment #}\nx {# c #} y\n  {#- c -#}\n z {#+ c +#}\n w",
    "{% raw %}\n  {{ x }}\n{% endraw %}\nz",
    "  {%- raw -%}  {{ x }} {%- endraw -%}  z",
    "  {% raw %}  {{ x }}  \n  {% endraw +%}\n z",
    "x {{- 1 -}} y {{ 2 }}\n{{ 3 }}\n\n{{ 4 -}}\n\n5",
    "{% for i in [1,\n 2] %}\n{{ i }}\n{% endfor %}\n",
    "a\r\nb\r{% if true %}\r\nc{% endif %}\r\n",
    "\n\n{% if true %}\n\n\nx\n{% endif %}",
    "\t {% set x = 1 %} \t{{ x }}\u00a0{%- set y = 2 %}\u3000{{ y }}",
    "{{ 'a\r\nb' }}{{ 'line\\\ncont' }}",
    "{% set a -%}  x  {%- endset %}[{{ a }}]{% set b %}  x  {% endset %}[{{ b }}]",
    "{",
    "{ {{ '{' }} }",
    "{{ '}}' }}{{ {'a': {'b': 1}}['a']['b'] }}{{ {'a':{}} }}",
    "",
    "\n",
    "{% if true -%}\n   a\n{%- elif x %}b{% else %}c\n{%- endif %}  \n d",
    "  {{ 1 }}\n  {%- for i in [1] %}  {{ i }}  {% endfor %}  \n",
]


def call(name, arguments, id="call12345"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


TOOLS = [
    {"type": "function", "function": {
        "name": "forecast", "description": "What the <b>\"weather\"</b> will be & was",
        "parameters": {"type": "object", "properties": {
            "place": {"type": "string", "description": "A town, e.g. Zürich"},
            "unit": {"type": "string", "enum": ["celsius", "kelvin", 3]},
            "days": {"type": "integer", "default": 1, "maximum": 18446744073709551615},
            "options": {"type": "array", "items": {"type": "object", "properties": {
                "wind": {"type": "boolean", "default": False},
                "share": {"type": ["number", "null"]}}, "required": ["wind"]}}},
            "required": ["place"]},
        "return": {"type": "string"}}},
    {"type": "function", "function": {
        "name": "nothing", "description": "", "parameters": {"type": "object", "properties": {}}}},
    {"type": "function", "function": {
        "name": "lines", "description": "first\nsecond — ☃", "parameters": {
            "type": "object", "properties": {"x": {"type": "array"}, "y": {"type": "object"}}}}},
]


def message(role, content, **more):
    return {"role": role, "content": content, **more}


def user(content):
    return message("user", content)


def assistant(content, **more):
    return message("assistant", content, **more)


CONVERSATIONS = [
    [user("Hello")],
    [message("system", " Be kind.\n"), user("Hello")],
    [user("Hi"), assistant("  Hey there\n"), user("How are you?")],
    [user("")],
    [message("system", ""), user("x")],
    [],
    [user("ünïcödé ☃ 😀 <|over|> [ASK] </s> 'q' \"dq\" \\ \t")],
    [user("a"), user("b")],
    [assistant("a"), user("b")],
    [user("a"), message("system", "late"), assistant("b")],
    [user([{"type": "text", "text": "one"}, {"type": "image"}, {"type": "text", "text": "two"}])],
    [message("system", [{"type": "text", "text": "part"}]), user("x")],
    [user("w?"), assistant("", tool_calls=[call("forecast", {"place": "Ulm", "unit": None})]),
     message("tool", '{"t": 22}', tool_call_id="call12345"), assistant("22"), user("thanks")],
    [user("w?"), assistant(None, tool_calls=[call("forecast", '{"place": "Ulm"}')]),
     message("tool", "22", tool_call_id="call12345")],
    [user("w?"), assistant("well", tool_calls=[
        call("forecast", {"place": "Zürich", "n": [1, 2.5, None, True]}, "abcdefghi"),
        call("nothing", {}, "jklmnopqr")]),
     message("tool", "22", tool_call_id="abcdefghi"),
     message("tool", {"a": 1, "b": [True, None]}, tool_call_id="jklmnopqr"), assistant("fine")],
    [user("w?"), {"role": "assistant", "tool_calls": [call("nothing", {}, "short")]}],
    [user("w?"), assistant("<think>\nhm\n</think>\n\nyes"), user("more"),
     assistant("<think>a</think>b", thought="deep")],
    [message("Stop", "x"), user("q")],
    [message("weird", "x"), user("q")],
    [{"role": "user"}],
    [{"content": "x"}],
    [user(5)],
    [user({"a": 1})],
    [user("w?"), message("ipython", {"k": 1.0}), message("stop", "x"), user("unseen")],
]

EXTRAS = [
    {},
    {"enable_thinking": False, "builtin": ["forecast"], "tools_in_user": True},
]


def render(env, source, variables):
    try:
        return {"expected": env.from_string(source).render(**variables)}
    except jinja2.exceptions.TemplateError as error:
        # Only what a template raises itself is a message to keep; ours differ otherwise.
        if type(error) is jinja2.exceptions.TemplateError:
            return {"error": str(error)}
        return {"error": ""}
    except Exception:
        return {"error": ""}


def main():
    env = environment()
    snippets = (HERE / "expressions.txt").read_text().splitlines() + LAYOUTS
    golden = {
        "now": NOW,
        "variables": VARIABLES,
        "snippets": [{"template": s, **render(env, s, VARIABLES)} for s in snippets],
        "tools": TOOLS,
        "conversations": CONVERSATIONS,
        "extras": EXTRAS,
        "chats": [],
    }
    for path in sorted((HERE / "templates").glob("*.jinja")):
        source = path.read_text()
        for conversation, messages in enumerate(CONVERSATIONS):
            for with_tools in (False, True):
                for extra, more in enumerate(EXTRAS):
                    variables = {
                        "messages": messages, "tools": TOOLS if with_tools else None,
                        "documents": None, "add_generation_prompt": extra == 0,
                        "bos_token": "<s>", "eos_token": "</s>", **more}
                    golden["chats"].append({
                        "template": path.name, "conversation": conversation,
                        "with_tools": with_tools, "extra": extra,
                        **render(env, source, variables)})
    with open(HERE / "golden.json", "w") as out:
        json.dump(golden, out, ensure_ascii=False, indent=0)
        out.write("\n")


if __name__ == "__main__":
    main()
