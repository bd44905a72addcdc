"""A lineage graph for people: as a tree of text, or as a picture that needs nothing beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from registry.ids import short

_BASE = {"requests": 4, "alias": 4, "evidence": 3, "release": 2}
"""Least column of a kind; everything else stands right before what was made with it."""
_COLOURS = {
    "release": "#1f4e8c", "evidence": "#2e7d4f", "alias": "#7a3e9d", "requests": "#8a5a00",
    "prompt": "#3b6ea8", "index": "#3b6ea8", "model": "#3b6ea8", "judge": "#3b6ea8", "suite": "#4f6b5a",
}  # fmt: skip
_OTHER, _BAD = "#5b6770", "#b3261e"
_WIDTH, _HEIGHT, _ACROSS, _DOWN, _EDGE_OF_PAGE, _TOP = 226, 46, 84, 14, 24, 58
_SWEEPS = 6
_SHAPE = "font-family='system-ui,-apple-system,Segoe UI,Helvetica,Arial,sans-serif'"


_Stop = tuple[str, str]
"""A node and nothing; or where an edge passes a column, and the node it leads to."""


def text(graph: Mapping[str, Any], width: int = 100) -> str:
    """
    The graph as two trees below its root, no line longer than *width* characters.

    What stands there twice has its own branches only the first time.
    """
    nodes = {node["id"]: node for node in graph["nodes"]}
    root = nodes[graph["root"]]
    lines = [f"{root['kind']} {root['label']}  {short(root['details']['digest'])}"]
    above, below = _neighbours(graph["edges"], "to", "from"), _neighbours(graph["edges"], "from", "to")
    for heading, direction, branches in (("made of", "up", above), ("led to", "down", below)):
        if graph["direction"] in ("both", direction):
            lines.append(heading if branches.get(root["id"]) else f"{heading}: nothing")
            lines += _tree(root["id"], nodes, branches, {root["id"]})
    if graph["cut"]:
        lines.append("There is more than is shown here.")
    return "\n".join(line if len(line) <= width else line[: width - 1] + "…" for line in lines)


def json_text(graph: Mapping[str, Any]) -> str:
    """The graph as indented JSON, for a file."""
    return json.dumps(graph, indent=2) + "\n"


def svg(graph: Mapping[str, Any]) -> str:
    """The graph as a self-contained SVG: from left to right what was made of what, digests as tooltips."""
    rank = _ranks(graph["nodes"], graph["edges"])
    columns, routes = _columns(rank, graph["edges"])
    places = _places(columns)
    across = 2 * _EDGE_OF_PAGE + len(columns) * (_WIDTH + _ACROSS) - _ACROSS
    down = _TOP + _EDGE_OF_PAGE + max(map(_depth, columns)) + (20 if graph["cut"] else 0)
    root = next(node for node in graph["nodes"] if node["id"] == graph["root"])
    title = escape(f"Lineage of {root['kind']} {root['label']}")
    summary = (
        f"{len(graph['nodes'])} nodes, {len(graph['edges'])} edges; what was used stands left of its use"
    )
    size = f'width="{across}" height="{down}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {across} {down}" role="img"'
    parts = [
        head + ' aria-labelledby="title summary">',
        f'<title id="title">{title}</title><desc id="summary">{escape(summary)}</desc>',
        f'<rect {size} fill="#ffffff"/>',
        f'<text x="{_EDGE_OF_PAGE}" y="34" font-size="18" font-weight="600" {_SHAPE}>{title}</text>',
        *(
            _line(edge["label"], [places[at] for at in route])
            for edge, route in zip(graph["edges"], routes, strict=True)
        ),
        *(_box(node, places[node["id"], ""], root=node is root) for node in graph["nodes"]),
    ]
    if graph["cut"]:
        parts.append(
            f'<text x="{_EDGE_OF_PAGE}" y="{down - 12}" font-size="12" fill="{_BAD}" {_SHAPE}>'
            "There is more than is shown here.</text>"
        )
    return "\n".join([*parts, "</svg>", ""])


def detail(node: Mapping[str, Any]) -> str:
    """The second line about a node: what matters of its details."""
    known = node["details"]
    if known.get("missing"):
        return "no longer in the registry"
    if known.get("damaged"):
        return "cannot be read"
    match node["kind"]:
        case "evidence":
            gone = ", withdrawn" if known["withdrawn_at"] else ""
            return f"on {known['dataset'] or 'a dataset'}, {known['samples']} samples{gone}"
        case "requests":
            unpriced = f", {known['unpriced']:,} unpriced" if known["unpriced"] else ""
            dollars = known["cost_microusd"] / 1e6
            cost = f"{dollars:,.2f}" if dollars >= 1 else f"{dollars:.4f}"
            return f"{known['failed']:,} failed, {cost} USD{unpriced}"
        case "alias":
            return f"since {known['since'][:16].replace('T', ' ')} by {known['by']}" if known["since"] else ""
    if "created_by" in known:
        return f"{short(known['digest'])} {known['created_at'][:10]} {known['created_by']}"
    return ""


def _tree(
    node: str,
    nodes: Mapping[str, Mapping[str, Any]],
    branches: Mapping[str, Sequence[tuple[str, str]]],
    seen: set[str],
) -> Iterator[str]:
    """Lines of the branches of *node*, depth first, without recursion."""
    stack = [(node, "", iter(list(enumerate(branches.get(node, ())))))]
    while stack:
        at, indent, left = stack[-1]
        step = next(left, None)
        if step is None:
            stack.pop()
            continue
        place, (other, label) = step
        last = place == len(branches[at]) - 1
        again = other in seen and bool(branches.get(other))
        more = " (see above)" if again else ""
        yield f"{indent}{'└─' if last else '├─'} {_said(nodes[other], label)}{more}"
        if other not in seen:
            seen.add(other)
            stack.append(
                (other, indent + ("   " if last else "│  "), iter(list(enumerate(branches.get(other, ())))))
            )


def _said(node: Mapping[str, Any], label: str) -> str:
    more = detail(node)
    role = "" if label in (node["kind"], "measured", "answered") else f" [{label}]"
    kind = "" if node["kind"] in ("alias", "requests") else f"{node['kind']} "
    return f"{kind}{node['label']}{role}{f'  {more}' if more and node['kind'] != 'alias' else ''}"


def _neighbours(edges: Sequence[Mapping[str, Any]], key: str, value: str) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for edge in edges:
        found.setdefault(edge[key], []).append((edge[value], edge["label"]))
    return found


def _ranks(nodes: Sequence[Mapping[str, Any]], edges: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The column of every node, right of all it was made of, and else as near as may be to its use."""
    kinds = {node["id"]: node["kind"] for node in nodes}
    rank = {node: _BASE.get(kind, 0) for node, kind in kinds.items()}
    for _ in kinds:  # digests cannot go round in a circle, so this ends
        late = [edge for edge in edges if rank[edge["to"]] <= rank[edge["from"]]]
        for edge in late:
            rank[edge["to"]] = max(rank[edge["to"]], rank[edge["from"]] + 1)
        if not late:
            break
    after: dict[str, list[str]] = {}
    for edge in edges:
        after.setdefault(edge["from"], []).append(edge["to"])
    for node in sorted(after, key=rank.__getitem__, reverse=True):
        if kinds[node] not in _BASE:
            rank[node] = min(rank[other] for other in after[node]) - 1
    used = {number: place for place, number in enumerate(sorted(set(rank.values())))}
    return {node: used[number] for node, number in rank.items()}


def _columns(
    rank: Mapping[str, int], edges: Sequence[Mapping[str, Any]]
) -> tuple[list[list[_Stop]], list[list[_Stop]]]:
    """
    What stands in each column, so ordered that few lines cross; and for each edge where it passes.

    An edge across several columns has a stop of its own in each, between boxes. Order by the barycentre of
    the neighbours: Sugiyama, Tagawa and Toda 1981.
    """
    columns: list[list[_Stop]] = [[] for _ in range(max(rank.values()) + 1)]
    for node, number in rank.items():
        columns[number].append((node, ""))
    routes: list[list[_Stop]] = []
    joined: dict[_Stop, list[_Stop]] = {}
    for edge in edges:
        start, end = edge["from"], edge["to"]
        between: list[_Stop] = []
        for number in range(rank[start] + 1, rank[end]):
            between.append((f"{start} {number}", end))
            columns[number].append(between[-1])
        route = [(start, ""), *between, (end, "")]
        routes.append(route)
        for left, right in pairwise(route):
            joined.setdefault(left, []).append(right)
            joined.setdefault(right, []).append(left)
    for sweep in range(_SWEEPS):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            height = {stop: y for stop, (_, y) in _places(columns).items()}
            around = {stop: [height[other] for other in joined.get(stop, [stop])] for stop in column}
            column.sort(key=lambda stop: sum(around[stop]) / len(around[stop]))
    return columns, routes


def _depth(column: Sequence[_Stop]) -> int:
    return sum(map(_tall, column)) + _DOWN * (len(column) - 1)


def _tall(stop: _Stop) -> int:
    return 2 if stop[1] else _HEIGHT


def _places(columns: Sequence[Sequence[_Stop]]) -> dict[_Stop, tuple[float, float]]:
    """The left end and the middle of everything; columns are centred beside each other."""
    deepest = max(map(_depth, columns))
    places = {}
    for number, column in enumerate(columns):
        y = _TOP + (deepest - _depth(column)) / 2
        for stop in column:
            places[stop] = (float(_EDGE_OF_PAGE + number * (_WIDTH + _ACROSS)), y + _tall(stop) / 2)
            y += _tall(stop) + _DOWN
    return places


def _line(label: str, stops: Sequence[tuple[float, float]]) -> str:
    """A line from the right of the first to the left of the last, level where it passes between boxes."""
    bend = _ACROSS / 2
    x, y = stops[0][0] + _WIDTH, stops[0][1]
    drawn = [f"M{x:g} {y:g}"]
    for left, level in stops[1:]:
        drawn.append(f"C{x + bend:g} {y:g} {left - bend:g} {level:g} {left:g} {level:g}H{left + _WIDTH:g}")
        x, y = left + _WIDTH, level
    path = "".join(drawn).rpartition("H")[0]
    return (
        f'<path d="{path}" fill="none" stroke="#9aa4ad" stroke-width="1.4">'
        f"<title>{escape(label)}</title></path>"
    )


def _box(node: Mapping[str, Any], place: tuple[float, float], *, root: bool) -> str:
    x, y = place[0], place[1] - _HEIGHT / 2
    known = node["details"]
    bad = known.get("missing") or known.get("damaged") or known.get("withdrawn_at")
    bad = bad or known.get("verdict") not in (None, "pass")
    colour = _BAD if bad else _COLOURS.get(node["kind"], _OTHER)
    full = known.get("digest") or known.get("key") or ""
    kind = "" if node["kind"] in ("alias", "requests") else f"{node['kind']} "
    fill = "#eef4fb" if root else "#ffffff"
    more = escape(_fit(detail(node), 36))
    return (
        f"<g><title>{escape(' '.join(filter(None, (node['kind'], node['label'], full))))}</title>"
        f'<rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="{fill}" '
        f'stroke="{colour}" stroke-width="{2.5 if root else 1.4}"/>'
        f'<text x="{x + 10:g}" y="{y + 19:g}" font-size="12.5" font-weight="600" fill="{colour}" {_SHAPE}>'
        f"{escape(_fit(kind + node['label'], 30))}</text>"
        f'<text x="{x + 10:g}" y="{y + 36:g}" font-size="11" fill="#48525a" {_SHAPE}>{more}</text></g>'
    )


def _fit(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"
