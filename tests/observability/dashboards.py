"""The provisioned dashboards, and their queries as Prometheus gets them."""

import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "grafana" / "dashboards"


def load():
    """The dashboards by their uid."""
    boards = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))]
    return {board["uid"]: board for board in boards}


def panels(board):
    """All panels, those within rows too."""
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


def variables(board):
    return {variable["name"]: variable for variable in board["templating"]["list"]}


def substitute(text, values):
    """What Grafana does to a query or a title: the longest names first."""
    for name in sorted(values, key=len, reverse=True):
        text = text.replace("${" + name + "}", values[name]).replace("$" + name, values[name])
    return text


def everything(board, rate_interval, span):
    """Values for the variables of a board: all of each."""
    values = {name: variable.get("allValue", ".*") for name, variable in variables(board).items()}
    return {**values, "__rate_interval": rate_interval, "__range": span}
