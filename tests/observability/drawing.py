"""Draws Grafana panels as HTML with SVG, from the results of their queries. For the previews in docs/dashboards/."""

import html
import math

PALETTE = ["#7EB26D", "#EAB839", "#6ED0E0", "#EF843C", "#E24D42", "#5195CE", "#BA43A9", "#9A86D2", "#B7DBAB", "#F4D598"]
COLOURS = {"green": "#73BF69", "orange": "#FF9830", "red": "#F2495C", "blue": "#5794F2"}
SCALES = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")]
SMALL = [(1, "s", 1), (1e-3, "ms", 1e3), (1e-6, "µs", 1e6), (1e-9, "ns", 1e9)]
STYLE = """
body{margin:0;background:#111217;color:#ccccdc;font:12px Inter,'DejaVu Sans',Arial,sans-serif;width:1400px}
h1{font-size:17px;font-weight:500;margin:0;padding:13px 16px 3px;color:#e6e6f0}
#board{position:relative;margin:0 8px}
.panel{position:absolute;background:#181b1f;border:1px solid #26282e;border-radius:3px;box-sizing:border-box;overflow:hidden}
.panel h2{font-size:12.5px;font-weight:500;margin:0;padding:6px 9px 0;white-space:nowrap;color:#d5d5e2}
.row{position:absolute;font-size:13.5px;font-weight:500;color:#e6e6f0;padding:6px 4px}
.row span{color:#7b8087}
svg{display:block}
text{font:10.5px Inter,'DejaVu Sans',Arial,sans-serif;fill:#9fa7b3}
.legend{padding:0 9px;font-size:10.5px;color:#b8bcc6;line-height:15px;max-height:30px;overflow:hidden}
.legend i{display:inline-block;width:11px;height:3px;border-radius:2px;margin:0 4px 3px 0;vertical-align:middle}
.legend span{margin-right:11px;white-space:nowrap;display:inline-block}
table{border-collapse:collapse;width:100%;font-size:12px;margin-top:4px}
td,th{padding:4.5px 9px;text-align:right;border-top:1px solid #26282e;font-weight:400}
th{color:#8e96a3;text-align:right}td.k,th.k{text-align:left}
"""


def trim(value, digits):
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def show(value, unit, decimals=None):
    """A value as Grafana writes it in that unit, roughly."""
    if value is None or math.isnan(value):
        return "-"
    if unit == "percentunit":
        return trim(value * 100, 1 if decimals is None else decimals) + "%"
    if unit == "s":
        for least, name, factor in SMALL:
            if abs(value) >= least * 0.9995:
                scaled = value * factor
                return trim(scaled, 0 if scaled >= 100 else 1 if scaled >= 10 else 2) + " " + name
        return "0 s"
    if unit == "bytes":
        for power, name in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
            if value >= 1024**power:
                return trim(value / 1024**power, 1) + " " + name
        return trim(value, 0) + " B"
    suffix = {"watt": " W", "celsius": " °C", "joule": " J"}.get(unit, "")
    if unit == "joule" and 0 < abs(value) < 1:
        return trim(value * 1e3, 1) + " mJ"
    for scale, name in SCALES:
        if abs(value) >= scale:
            scaled = value / scale
            return trim(scaled, 0 if scaled >= 100 else 1 if scaled >= 10 else 2) + " " + name + suffix
    digits = decimals if decimals is not None else 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return trim(value, digits) + suffix


def ticks(low, high, log):
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        return [10.0**power for power in range(first, last + 1)]
    span = high - low
    step = 10 ** math.floor(math.log10(span / 3))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if span / (step * factor) <= 4)
    count = round(high / step + 0.499999)
    return [step * i for i in range(math.floor(low / step), count + 1)]


class Axis:
    def __init__(self, values, log, unit, most=None, height=100):
        values = [v for v in values if v is not None and not math.isnan(v) and (v > 0 or not log)]
        low = min(values, default=0.001 if log else 0)
        high = max(values, default=1)
        if log:
            self.marks = ticks(low, high if high > low else low * 10, True)
        else:
            high = most if most else high * 1.05
            self.marks = ticks(0, high if high > 0 else 1, False)
        self.log, self.unit, self.height = log, unit, height
        self.low, self.high = self.marks[0], most if most and not log else self.marks[-1]
        self.marks = [mark for mark in self.marks if mark <= self.high * 1.0001]

    def y(self, value):
        if self.log:
            low, high = math.log10(self.low), math.log10(self.high)
            share = (math.log10(max(value, self.low)) - low) / (high - low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.height - max(0, min(1, share)) * self.height


def path(points):
    parts, pen = [], False
    for x, y in points:
        if y is None:
            pen = False
            continue
        parts.append(f"{'L' if pen else 'M'}{x:.1f} {y:.1f}")
        pen = True
    return "".join(parts)


def clock(seconds):
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


def time_marks(span, width):
    step = next(step for step in (10, 15, 30, 60, 120, 300, 600) if span / step <= max(2, min(7, width / 45)))
    return range(0, int(span) + 1, step)


def timeseries(panel, series, start, end, width, height):
    """`series`: (name, refId, {time: value}); times in seconds."""
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    log = custom["scaleDistribution"]["type"] == "log"
    stacked = custom["stacking"]["mode"] == "normal"
    right = {o["matcher"]["options"]: o["properties"][0]["value"] for o in panel["fieldConfig"]["overrides"]
             if o["matcher"]["id"] == "byFrameRefID"}
    times = sorted({t for _, _, points in series for t in points})
    left_pad, right_pad, plot_height = 52, 52 if right else 12, height - 70
    plot_width = width - left_pad - right_pad
    shown = []
    base = dict.fromkeys(times, 0.0)
    for name, ref, points in series:
        if stacked:
            for t in times:
                base[t] += 0 if math.isnan(points.get(t, math.nan)) else points[t]
            points = dict(base)
        shown.append((name, ref, points))
    axes = {}
    for on_right in (False, True):
        values = [v for _, ref, points in shown if (ref in right) == on_right for v in points.values()]
        unit = next((right[ref] for _, ref, _ in shown if ref in right), None) if on_right else defaults["unit"]
        if values or not on_right:
            axes[on_right] = Axis(values, log, unit, None if on_right else defaults.get("max"), plot_height)
    x_of = lambda t: left_pad + (t - start) / (end - start) * plot_width
    out = [f'<svg width="{width}" height="{plot_height + 30}"><g transform="translate(0,8)">']
    for mark in axes[False].marks:
        y = axes[False].y(mark)
        out.append(f'<line x1="{left_pad}" x2="{left_pad + plot_width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#2b2e35"/>')
        out.append(f'<text x="{left_pad - 6}" y="{y + 3.5:.1f}" text-anchor="end">{show(mark, axes[False].unit)}</text>')
    for mark in axes[True].marks if True in axes else []:
        out.append(f'<text x="{left_pad + plot_width + 6}" y="{axes[True].y(mark) + 3.5:.1f}">{show(mark, axes[True].unit)}</text>')
    for second in time_marks(end - start, plot_width):
        x = x_of(start + second)
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{plot_height}" stroke="#23262c"/>')
        out.append(f'<text x="{x:.1f}" y="{plot_height + 14}" text-anchor="middle">{clock(second)}</text>')
    legend = []
    order = list(enumerate(shown))
    for index, (name, ref, points) in reversed(order) if stacked else order:
        colour = PALETTE[index % len(PALETTE)]
        axis = axes[ref in right]
        dots = [(x_of(t), None if math.isnan(points[t]) or (log and points[t] <= 0) else axis.y(points[t]))
                for t in times if t in points]
        known = [dot for dot in dots if dot[1] is not None]
        if known:
            if stacked or not log:
                area = path(known) + f"L{known[-1][0]:.1f} {plot_height}L{known[0][0]:.1f} {plot_height}Z"
                if stacked:
                    out.append(f'<path d="{area}" fill="#181b1f"/>')
                out.append(f'<path d="{area}" fill="{colour}" fill-opacity="{0.5 if stacked else 0.09}"/>')
            out.append(f'<path d="{path(dots)}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
    for index, (name, _, _) in order:
        legend.append(f'<span><i style="background:{PALETTE[index % len(PALETTE)]}"></i>{html.escape(name)}</span>')
    return "".join(out) + f'</g></svg><div class="legend">{"".join(legend)}</div>'


def threshold_colour(defaults, value):
    colour = "blue"
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    return COLOURS[colour]


def stat(panel, series, start, end, width, height):
    defaults = panel["fieldConfig"]["defaults"]
    points = next((points for _, _, points in series), {})
    known = [(t, v) for t, v in sorted(points.items()) if not math.isnan(v)]
    value = known[-1][1] if known else math.nan
    text, colour = show(value, defaults["unit"], defaults.get("decimals")), COLOURS["blue"]
    if known:
        colour = threshold_colour(defaults, value)
        for mapping in defaults["mappings"]:
            if trim(value, 3) in mapping["options"]:
                text, colour = mapping["options"][trim(value, 3)]["text"], COLOURS[mapping["options"][trim(value, 3)]["color"]]
    out = [f'<svg width="{width}" height="{height - 24}">']
    if len(known) > 1:
        top, low = max(v for _, v in known), min(0, *(v for _, v in known))
        spark = 34
        dots = [(width * (t - start) / (end - start), height - 26 - (v - low) / ((top - low) or 1) * spark) for t, v in known]
        area = path(dots) + f"L{dots[-1][0]:.1f} {height - 24}L{dots[0][0]:.1f} {height - 24}Z"
        out.append(f'<path d="{area}" fill="{colour}" fill-opacity="0.16"/><path d="{path(dots)}" fill="none" '
                   f'stroke="{colour}" stroke-opacity="0.7"/>')
    size = 27 if len(text) < 8 else 23
    out.append(f'<text x="{width / 2}" y="46" text-anchor="middle" style="font-size:{size}px;font-weight:500;fill:{colour}">'
               f'{html.escape(text)}</text></svg>')
    return "".join(out)


def turbo(share):
    """A blue to red scale."""
    stops = [(48, 18, 59), (65, 100, 220), (36, 187, 236), (60, 240, 150), (190, 240, 60), (252, 170, 52), (220, 60, 14)]
    at = min(max(share, 0), 0.9999) * (len(stops) - 1)
    low = int(at)
    mix = [round(a + (b - a) * (at - low)) for a, b in zip(stops[low], stops[low + 1])]
    return f"rgb({mix[0]},{mix[1]},{mix[2]})"


def heatmap(panel, series, start, end, width, height):
    """`series`: (bound, refId, {time: cumulative count})."""
    unit = panel["options"]["yAxis"]["unit"]
    rows = sorted((float(bound), points) for bound, _, points in series)
    times = sorted({t for _, points in rows for t in points})
    cells, below = [], dict.fromkeys(times, 0.0)
    for bound, points in rows:
        row = {t: max(points.get(t, 0) - below[t], 0) for t in times}
        below = {t: max(below[t], points.get(t, 0)) for t in times}
        cells.append((bound, row))
    used = [i for i, (bound, row) in enumerate(cells) if max(row.values(), default=0) > 0 and not math.isinf(bound)]
    cells = cells[max(used[0] - 1, 0):used[-1] + 2] if used else cells[:2]
    cells = [cell for cell in cells if not math.isinf(cell[0])]
    most = max((v for _, row in cells for v in row.values()), default=1) or 1
    left_pad, plot_height = 58, height - 56
    plot_width = width - left_pad - 12
    w, h = plot_width / max(len(times), 1), plot_height / max(len(cells), 1)
    out = [f'<svg width="{width}" height="{plot_height + 30}"><g transform="translate(0,8)">']
    for index, (bound, row) in enumerate(cells):
        y = plot_height - (index + 1) * h
        if index % max(1, round(len(cells) / 9)) == 0:
            out.append(f'<text x="{left_pad - 6}" y="{y + 4:.1f}" text-anchor="end">{show(bound, unit)}</text>')
        for column, t in enumerate(times):
            if row[t] > 0:
                out.append(f'<rect x="{left_pad + column * w:.1f}" y="{y:.1f}" width="{w - 0.6:.1f}" height="{h - 0.6:.1f}" '
                           f'fill="{turbo((row[t] / most) ** 0.5)}"/>')
    for second in time_marks(end - start, plot_width):
        x = left_pad + second / (end - start) * plot_width
        out.append(f'<text x="{x:.1f}" y="{plot_height + 14}" text-anchor="middle">{clock(second)}</text>')
    return "".join(out) + "</g></svg>"


def bargauge(panel, series, start, end, width, height):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    values = sorted(((name, list(points.values())[-1]) for name, _, points in series if points), key=lambda p: -p[1])
    most = max((v for _, v in values), default=1) or 1
    step = (height - 40) / max(len(values), 1)
    out = [f'<svg width="{width}" height="{height - 26}">']
    for index, (name, value) in enumerate(values):
        y = 8 + index * step
        bar = (width - 170) * value / most
        out.append(f'<text x="84" y="{y + step / 2 + 4:.1f}" text-anchor="end" style="font-size:12px">{html.escape(name)}</text>'
                   f'<rect x="94" y="{y + 4:.1f}" width="{width - 170}" height="{step - 10:.1f}" fill="#22252b"/>'
                   f'<rect x="94" y="{y + 4:.1f}" width="{bar:.1f}" height="{step - 10:.1f}" fill="{PALETTE[index]}" fill-opacity=".8"/>'
                   f'<text x="{width - 68}" y="{y + step / 2 + 5:.1f}" style="font-size:14px;fill:{PALETTE[index]}">{show(value, unit)}</text>')
    return "".join(out) + "</svg>"


def table(panel, rows, columns):
    """`rows`: {labels as a tuple of pairs: {column: value}}."""
    overrides = {o["matcher"]["options"]: {p["id"]: p["value"] for p in o["properties"]}
                 for o in panel["fieldConfig"]["overrides"]}
    keys = sorted({name for labels in rows for name, _ in labels}, key=["instance", "device", "card"].index)
    out = ["<table><tr>", *(f'<th class="k">{key}</th>' for key in keys), *(f"<th>{c}</th>" for c in columns), "</tr>"]
    for labels, values in sorted(rows.items()):
        out.append("<tr>" + "".join(f'<td class="k">{html.escape(dict(labels).get(key, ""))}</td>' for key in keys))
        for column in columns:
            value, properties = values.get(column, math.nan), overrides[column]
            style = ""
            if "thresholds" in properties and not math.isnan(value):
                style = f' style="color:{threshold_colour(properties, value)}"'
            out.append(f"<td{style}>{show(value, properties['unit'])}</td>")
        out.append("</tr>")
    return "".join(out) + "</table>"
