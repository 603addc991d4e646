"""Writes a GGUF file that holds a tokenizer and a chat template, and no weights: enough of a model
for the fake device. Its tokens are the 256 bytes, some words, <|begin|> and <|end|>."""

import struct

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{{ eos_token }}"
    "{% endfor %}{% if tools %}[tools]{{ tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}")

UINT32, INT32, BOOL, STRING, ARRAY = 4, 5, 7, 8, 9
NORMAL, CONTROL = 1, 3


def byte_characters():
    """The printable character that stands for each byte in byte-level vocabularies."""
    plain = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    extra = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(extra)) for b in range(256)]


def _string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(kind, value):
    if kind == STRING:
        return _string(value)
    return struct.pack({UINT32: "<I", INT32: "<i", BOOL: "<?"}[kind], value)


def _entry(key, kind, value):
    head = _string(key)
    if isinstance(value, list):
        body = b"".join(_value(kind, item) for item in value)
        return head + struct.pack("<IIQ", ARRAY, kind, len(value)) + body
    return head + struct.pack("<I", kind) + _value(kind, value)


def write(path, context=4096):
    """Returns the ids of <|begin|> and <|end|>."""
    tokens = byte_characters() + ["<|begin|>", "<|end|>"]
    types = [NORMAL] * 256 + [CONTROL] * 2
    entries = [
        _entry("general.architecture", STRING, "llama"),
        _entry("llama.context_length", UINT32, context),
        _entry("tokenizer.ggml.model", STRING, "gpt2"),
        _entry("tokenizer.ggml.pre", STRING, "llama-bpe"),
        _entry("tokenizer.ggml.tokens", STRING, tokens),
        _entry("tokenizer.ggml.token_type", INT32, types),
        _entry("tokenizer.ggml.merges", STRING, []),
        _entry("tokenizer.ggml.bos_token_id", UINT32, 256),
        _entry("tokenizer.ggml.eos_token_id", UINT32, 257),
        _entry("tokenizer.ggml.add_bos_token", BOOL, True),
        _entry("tokenizer.chat_template", STRING, CHAT_TEMPLATE),
    ]
    with open(path, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)))
        file.write(b"".join(entries))
    return 256, 257
