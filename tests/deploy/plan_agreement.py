#!/usr/bin/env python3
"""What `reticle plan` predicts against what `reticle load` measures of `reticle serve` on the wall clock.

    tests/deploy/plan_agreement.py build/release/reticle [--repeat 3] \
        [--serve-prefix "chrt -r 5" --load-prefix "chrt -r 6"]

Both get the same trace, arrival by arrival, so that chance is the same on both sides. A run of which the load generator
itself says that it could not keep up (its verdict is not "ok") says nothing and is made again. Prints the median of the
others beside the plan, and exits with 1 when a figure is off by more than --limit.
"""

import argparse
import json
import math
import os
import random
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile

# name, profile, cards, requests a second, coefficient of variation between them, tokens in and out. With a sigma,
# lengths are lognormal about these medians.
CASES = [
    ("hc1-steady", "taalas-hc1", 2, 50, 1.0, 1000, 300, 0.0),
    ("hc1-bursts", "taalas-hc1", 4, 60, 2.0, 600, 200, 0.6),
    ("hc1-light", "taalas-hc1", 1, 10, 1.0, 200, 250, 0.4),
    ("h100-chat", "nvidia-h100", 2, 12, 1.0, 500, 150, 0.5),
]
FIGURES = ["ttft_p50", "ttft_p99", "tpot_p50", "tpot_p99", "e2e_p50", "e2e_p99", "requests/s", "tokens/s"]
KV_BYTES = 65536


def make_trace(path, rate, cv, prompt, output, sigma, seconds, prompt_scale=1.0):
    draw = random.Random(f"{rate} {cv} {prompt} {output}")
    shape = 1 / cv**2
    at = 0.0
    with open(path, "w", encoding="utf-8") as file:
        while True:
            at += draw.gammavariate(shape, 1 / shape / rate)
            if at > seconds:
                return
            lengths = [max(2, round(median * math.exp(sigma * draw.gauss(0, 1)))) for median in (prompt, output)]
            lengths = [min(lengths[0], 4000), min(lengths[1], 1500)]
            file.write(json.dumps({"timestamp": round(at * 1000, 3),
                                   "input_length": max(1, round(lengths[0] * prompt_scale)),
                                   "output_length": lengths[1]}) + "\n")


def measure(options, profile, cards, trace, folder):
    """One run of the server under the trace: its figures, and all that the load generator says."""
    server = subprocess.Popen(
        [*shlex.split(options.serve_prefix), options.reticle, "serve", "--device", profile, "--content", "replay", "--clock", "wall",
         "--cards", str(cards), "--device-option", f"replay_kv_bytes={KV_BYTES}", "--http", "0", "--grpc", "none"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        url = ""
        for line in server.stdout:
            found = re.match(r"HTTP +(\S+)", line)
            url = found[1] if found else url
            if line.startswith("Model"):
                break
        result = os.path.join(folder, "load.json")
        subprocess.run([*shlex.split(options.load_prefix), options.reticle, "load", "--url", url, "--api", "completions", "--arrival", "trace",
                        "--trace", trace, "--duration", f"{options.seconds}s", "--json", result, "--quiet"],
                       check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    finally:
        server.send_signal(signal.SIGTERM)
        server.stdout.close()
        server.wait()
    with open(result, encoding="utf-8") as file:
        load = json.load(file)
    assert load["requests"]["succeeded"] == load["requests"]["total"], load["errors"]
    times = {f"{name}_{p}": load[f"{name}_ms"][p] for name in ("ttft", "tpot", "e2e") for p in ("p50", "p99")}
    return {**times, "requests/s": load["rates"]["requests_per_second"],
            "tokens/s": load["rates"]["output_tokens_per_second"]}, load


def predict(options, profile, cards, trace, folder):
    result = os.path.join(folder, "plan.json")
    subprocess.run([options.reticle, "plan", "--profile", profile, "--cards", str(cards), "--trace", trace,
                    "--kv-bytes-per-token", str(KV_BYTES), "--host-time", options.host_time, "--json", result],
                   check=True, stdout=subprocess.DEVNULL)
    with open(result, encoding="utf-8") as file:
        plan = json.load(file)["profiles"][0]["plan"]
    times = {f"{name}_{p}": plan[f"{name}_{p}_ms"]["value"] for name in ("ttft", "tpot", "e2e") for p in ("p50", "p99")}
    return {**times, "requests/s": plan["requests_per_second"]["value"],
            "tokens/s": plan["output_tokens_per_second"]["value"]}


def show(name, value):
    if name.endswith("/s"):
        return f"{value:,.1f}"
    return f"{value * 1000:.1f} us" if value < 1 else f"{value:.2f} ms"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reticle")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--tries", type=int, default=10, help="runs at most, for --repeat that can be trusted")
    parser.add_argument("--serve-prefix", default="", help="of the server's command line, such as chrt -r 5")
    parser.add_argument("--load-prefix", default="", help="of the load's command line, such as chrt -r 6")
    parser.add_argument("--host-time", default="500us", help="for the plan: what HTTP and text add to a request")
    parser.add_argument("--limit", type=float, default=0.10)
    parser.add_argument("--case", action="append")
    options = parser.parse_args()
    worst = 0.0
    print("| case | figure | plan | measured | off by |\n|---|---|---|---|---|")
    for name, profile, cards, rate, cv, prompt, output, sigma in CASES:
        if options.case and name not in options.case:
            continue
        with tempfile.TemporaryDirectory() as folder:
            trace = os.path.join(folder, "trace.jsonl")
            make_trace(trace, rate, cv, prompt, output, sigma, options.seconds)
            runs = []
            for _ in range(options.tries):
                figures, load = measure(options, profile, cards, trace, folder)
                if load["client"]["verdict"] == "ok":
                    runs.append(figures)
                if len(runs) == options.repeat:
                    break
            if not runs:
                print(f"{name}: no run of {options.tries} can be trusted; the machine is too busy", file=sys.stderr)
                return 1
            # Prompts of words have nearly the tokens that were asked for; the plan takes what the server counted.
            with open(trace, encoding="utf-8") as file:
                asked = [json.loads(line) for line in file]
            scale = load["tokens"]["prompt"] / sum(entry["input_length"] for entry in asked)
            counted = os.path.join(folder, "counted.jsonl")
            make_trace(counted, rate, cv, prompt, output, sigma, options.seconds, scale)
            plan = predict(options, profile, cards, counted, folder)
        for figure in FIGURES:
            measured = statistics.median(run[figure] for run in runs)
            off = measured / plan[figure] - 1
            worst = max(worst, abs(off))
            print(f"| {name} | {figure} | {show(figure, plan[figure])} | {show(figure, measured)} | {off:+.1%} |")
            sys.stdout.flush()
    print(f"\nworst: {worst:.1%}")
    return 0 if worst <= options.limit else 1


if __name__ == "__main__":
    sys.exit(main())
