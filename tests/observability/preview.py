#!/usr/bin/env python3
"""Writes docs/dashboards/*.png: the provisioned dashboards over a live server under load, drawn without Grafana.

Usage: RETICLE=build/release/reticle /usr/bin/python3 tests/observability/preview.py [SECONDS]
Needs the packages prometheus, chromium and python3-pil. Panels, queries, units and layout are the dashboards' own.
"""

import math
import pathlib
import subprocess
import sys
import tempfile
import time

from PIL import Image

import dashboards
import drawing
import live

CELL, GAP = 30, 8
OUT = dashboards.ROOT / "docs" / "dashboards"


def expand(board, cards):
    """The panels as laid out: a repeated row once for each card. Yields (panel, y, values)."""
    blocks = []
    for panel in board["panels"]:
        if panel["type"] == "row" or not blocks:
            blocks.append([])
        blocks[-1].append(panel)
    shift = 0
    for block in blocks:
        first = block[0]["gridPos"]["y"]
        size = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in block) - first
        for number, card in enumerate(cards if block[0].get("repeat") else [None]):
            if number > 0:
                shift += size
            for panel in block:
                yield panel, panel["gridPos"]["y"] + shift, {} if card is None else {"card": card}


def legend(target, metric):
    text = target["legendFormat"]
    for name, value in metric.items():
        text = text.replace("{{" + name + "}}", value)
    return text if text != "__auto" else ", ".join(f"{k}={v}" for k, v in metric.items() if k != "__name__")


def draw(panel, values, prometheus, start, end, width, height):
    if panel["type"] == "table":
        names = list(panel["transformations"][1]["options"]["renameByName"].values())
        rows = {}
        for name, target in zip(names, panel["targets"]):
            for series in prometheus.query(dashboards.substitute(target["expr"], values)):
                labels = {**series["metric"]}
                if "instance" in labels:
                    labels["instance"] = "reticle:8080"
                rows.setdefault(tuple(sorted(labels.items())), {})[name] = float(series["value"][1])
        return drawing.table(panel, rows, names)
    step = (end - start) / (60 if panel["type"] == "heatmap" else 150)
    series = []
    for target in panel["targets"]:
        query = dashboards.substitute(target["expr"], values)
        if target.get("instant"):
            results = [{**one, "values": [one["value"]]} for one in prometheus.query(query)]
        else:
            results = prometheus.range(query, start, end, step)
        for one in results:
            metric = {**one["metric"]}
            if "instance" in metric:
                metric["instance"] = "reticle:8080"
            points = {float(t): float(v) for t, v in one["values"]}
            if not all(math.isnan(v) for v in points.values()):
                series.append((legend(target, metric), target["refId"], points))
    return getattr(drawing, panel["type"])(panel, series, start, end, width, height)


def page(board, prometheus, start, end):
    values = dashboards.everything(board, rate_interval="8s", span=f"{int(end - start)}s")
    values["device"] = live.DEVICE
    column, parts, bottom = (1400 - 16 + GAP) / 24, [], 0
    for panel, y, more in expand(board, ["0", "1", "2"]):
        box = panel["gridPos"]
        left, top = box["x"] * column, y * (CELL + GAP)
        width, height = box["w"] * column - GAP, box["h"] * (CELL + GAP) - GAP
        bottom = max(bottom, top + height)
        title = dashboards.substitute(panel["title"], {**values, **more})
        place = f'style="left:{left:.1f}px;top:{top}px;width:{width:.1f}px;height:{height}px"'
        if panel["type"] == "row":
            parts.append(f'<div class="row" {place}><span>⌄</span> {title}</div>')
            continue
        body = draw(panel, {**values, **more}, prometheus, start, end, round(width) - 2, height)
        parts.append(f'<div class="panel" {place}><h2>{title}</h2>{body}</div>')
    text = (f'<!doctype html><meta charset="utf-8"><style>{drawing.STYLE}</style><h1>{board["title"]}</h1>'
            f'<div id="board" style="height:{bottom + 8}px">{"".join(parts)}</div>')
    return text, bottom + 52


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 150
    tier = live.FreeTier("--tier-limit", "free.requests_per_minute=400", "--tier-limit", "free.tokens_per_minute=200000")
    try:
        prometheus = live.Prometheus(tier.server.port)
        start = time.time() + 4
        load = live.Load(tier)
        time.sleep(seconds)
        end = time.time()
        OUT.mkdir(exist_ok=True)
        pages = [(uid, *page(board, prometheus, start, end)) for uid, board in dashboards.load().items()]
        load.stop()
        prometheus.stop()
    finally:
        tier.stop()
    with tempfile.TemporaryDirectory() as folder:
        for uid, text, height in pages:
            source = pathlib.Path(folder) / f"{uid}.html"
            source.write_text(text, encoding="utf-8")
            target = OUT / f"{uid.removeprefix('reticle-')}.png"
            subprocess.run(["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                            "--disable-lcd-text", "--font-render-hinting=none",
                            f"--user-data-dir={folder}/profile", f"--window-size=1400,{height}",
                            f"--screenshot={target}", source.as_uri()], check=True, capture_output=True, timeout=120)
            few = Image.open(target).convert("RGB").quantize(128, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
            few.save(target, optimize=True)
            print(target, target.stat().st_size)


if __name__ == "__main__":
    main()
