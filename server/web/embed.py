#!/usr/bin/env python3
"""Writes the web pages as one C++ source: python3 embed.py OUT.cc FOLDER FILE...

Each file comes as it is, gzipped where that saves a tenth or more, and with an entity tag made of its contents. The
same files give the same output."""

import gzip
import hashlib
import pathlib
import sys

TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".js": "text/javascript; charset=utf-8", ".json": "application/json",
         ".svg": "image/svg+xml"}
# Where a file is served when that is not /assets/NAME.
PATHS = {"index.html": "/", "docs.html": "/docs", "openapi.json": "/openapi.json",
         "favicon.svg": "/favicon.svg"}


def literal(data):
    """A C++ string literal; octal escapes of three digits cannot run into what follows."""
    printable = {b: chr(b) for b in range(0x20, 0x7f) if chr(b) not in '"\\?'}
    lines = []
    for begin in range(0, len(data), 96):
        text = "".join(printable.get(b, f"\\{b:03o}") for b in data[begin:begin + 96])
        lines.append(f'    "{text}"')
    return "\n".join(lines) if lines else '    ""'


def view(name, data):
    return f"constexpr char {name}[] =\n{literal(data)};\n"


def main():
    out, folder, names = sys.argv[1], pathlib.Path(sys.argv[2]), sorted(sys.argv[3:])
    parts, rows = [], []
    for index, name in enumerate(names):
        data = (folder / name).read_bytes()
        packed = gzip.compress(data, 9, mtime=0)
        if len(packed) > 0.9 * len(data):
            packed = b""
        parts.append(view(f"kBody{index}", data))
        parts.append(view(f"kGzip{index}", packed))
        tag = hashlib.sha256(data).hexdigest()[:20]
        path = PATHS.get(name, "/assets/" + name)
        rows.append(f'    {{"{path}", "{TYPES[pathlib.Path(name).suffix]}", {{kBody{index}, {len(data)}}}, '
                    f'{{kGzip{index}, {len(packed)}}}, "{tag}"}},')
    text = ('// Made by server/web/embed.py.\n#include "server/web/web_assets.h"\n\n'
            "namespace reticle::server::web {\nnamespace {\n\n" + "\n".join(parts) +
            "\nconstexpr WebAsset kAssets[] = {\n" + "\n".join(rows) + "\n};\n\n}  // namespace\n\n"
            "std::span<const WebAsset> WebAssets() { return kAssets; }\n\n"
            "}  // namespace reticle::server::web\n")
    pathlib.Path(out).write_text(text, encoding="ascii")


if __name__ == "__main__":
    main()
