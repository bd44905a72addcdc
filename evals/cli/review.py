"""`evals review`: people judge answers, blind, and it is told how far they agree, also with a judge."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from registry.clock import utc_now
from registry.errors import BadInput
from registry.terminal import Json, actor, command_group, show, table

if TYPE_CHECKING:
    from evals.agreement.drawing import Item
    from evals.review import Agreement, Value
    from evals.stats import Estimate

_KEYS = {"g": "good", "b": "bad", "s": "skip"}
File = Annotated[
    Path, typer.Argument(metavar="QUEUE", help="A queue made with `review sample`.", show_default=False)
]
By = Annotated[str | None, typer.Option("--by", help="Who labels; by default who is logged in.")]


def add_to(application: typer.Typer) -> None:
    """Hang the group `review` into *application*."""
    group = command_group("Answers for people to judge, blind: draw, label, and see how far they agree.")
    group.command(
        "sample", epilog="Example: evals review sample out/outputs.jsonl --n 50 --for ann --for bob"
    )(sample)
    group.command("next", epilog="Example: evals review next review.jsonl --by ann")(show_next)
    group.command(
        "label",
        epilog="Example: evals review label review.jsonl --by ann   or, in scripts: --label q1=good",
    )(label)
    group.command("agreement", epilog="Example: evals review agreement review.jsonl --json")(agreement)
    group.command("export", epilog="Example: evals review export review.jsonl labels.jsonl")(export)
    application.add_typer(group, name="review")


def sample(
    outputs: Annotated[
        Path, typer.Argument(help="Rows that `evals run` wrote, in JSON Lines.", show_default=False)
    ],
    *,
    people: Annotated[
        list[str], typer.Option("--for", help="Who will label; repeatable.", show_default=False)
    ],
    n: Annotated[int, typer.Option("--n", min=1, max=100_000, help="At most so many answers.")] = 50,
    check: Annotated[str | None, typer.Option(help="The check whose judge is held to people.")] = None,
    threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="The score from which its verdict is good.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="Another number draws other answers.")] = 0,
    output: Annotated[Path, typer.Option(help="The queue to write.")] = Path("review.jsonl"),
    as_json: Json = False,
) -> None:
    """Draw answers for people to judge, as many of each verdict of the judge, which stays hidden."""
    from evals import review
    from evals.agreement.drawing import draw, read_outputs

    drawn = draw(read_outputs(outputs, check, threshold), n, seed)
    review.create(output, drawn, people)
    answer: dict[str, Any] = {"ok": True, "queue": str(output), "items": len(drawn), "people": people}
    answer["judge"] = {name: sum(one.verdict == name for one in drawn) for name in ("good", "bad")}
    show(answer, f"{output}: {len(drawn)} answers for {', '.join(people)}", as_json=as_json)


def show_next(file: File, *, by: By = None, as_json: Json = False) -> None:
    """Show the next answer that somebody has not labelled yet."""
    from evals import review

    who = by or actor()
    waiting = review.read(file).waiting(who)
    first = waiting[0] if waiting else None
    answer = {
        "ok": True,
        "by": who,
        "waiting": len(waiting),
        "item": asdict(first) if first is not None else None,
    }
    show(answer, lambda: _shown(first, len(waiting)), as_json=as_json)


def label(
    file: File,
    *,
    by: By = None,
    given: Annotated[
        list[str] | None, typer.Option("--label", help="ID=good, ID=bad or ID=skip; repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """
    Label one answer after the other in a terminal, or those named with --label.

    Each label is on disk before the next answer is shown; stop whenever you like and go on later.
    """
    from evals import review

    who = by or actor()
    if given:
        done = dict(map(_pair, given))
        review.add_labels(file, who, done, utc_now())
        count = len(done)
    else:
        count = _interactive(file, who)
    queue = review.read(file)
    answer = {"ok": True, "by": who, "labelled": count, "waiting": len(queue.waiting(who))}
    show(answer, f"{count} labelled by {who}, {answer['waiting']} to go", as_json=as_json)


def agreement(file: File, *, as_json: Json = False) -> None:
    """Tell how far people agree with each other, and the judge with them; list what they disagree on."""
    from evals import review

    found = review.agreement(review.read(file), review.read_verdicts(file))
    show({"ok": True, **asdict(found)}, lambda: _agreed(found), as_json=as_json)


def export(
    file: File,
    target: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    *,
    as_json: Json = False,
) -> None:
    """Write the labelled answers as rows for `evals calibrate`."""
    import json

    from evals import review

    rows = review.labelled_rows(review.read(file))
    if not rows:
        raise BadInput(f"{file}: nothing is labelled yet")
    try:
        with target.open("x", encoding="utf-8") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except OSError as error:
        raise BadInput(f"{target}: cannot be written: {error.strerror}") from error
    show({"ok": True, "file": str(target), "rows": len(rows)}, f"{target}: {len(rows)} rows", as_json=as_json)


def _interactive(file: Path, who: str) -> int:
    """Ask for one label after the other until nothing waits, or who labels stops."""
    from evals import review

    if not sys.stdin.isatty():
        raise BadInput("label: no terminal to ask in; name labels with --label ID=good")
    waiting = review.read(file).waiting(who)
    for count, item in enumerate(waiting):
        print(_shown(item, len(waiting) - count), file=sys.stderr)
        while True:
            print("[g]ood, [b]ad, [s]kip or [q]uit: ", end="", file=sys.stderr, flush=True)
            key = sys.stdin.readline().strip().lower()[:1] or "q"
            if key == "q":
                return count
            if key in _KEYS:
                break
        review.add_labels(file, who, {item.id: cast("Value", _KEYS[key])}, utc_now())
    return len(waiting)


def _pair(text: str) -> tuple[str, Value]:
    identity, found, value = text.rpartition("=")
    if not found or not identity or value not in _KEYS.values():
        raise BadInput(f"--label {text!r}: write ID=good, ID=bad or ID=skip")
    return identity, cast("Value", value)


def _shown(item: Item | None, waiting: int) -> str:
    if item is None:
        return "nothing waits"
    blocks = [f"--- {item.id} ({waiting} to go)"]
    blocks += [f"Question: {item.query}"] if item.query else []
    blocks += [f"Accepted: {text}" for text in item.answers]
    blocks += [f"Passage {number}: {text}" for number, text in enumerate(item.passages, 1)]
    text = "\n".join([*blocks, f"Answer: {item.answer}"])
    return "".join(one if one.isprintable() or one in "\n\t" else "\N{REPLACEMENT CHARACTER}" for one in text)


def _agreed(found: Agreement) -> str:
    rows: list[tuple[str, str]] = [("labelled", f"{found.labelled} of {found.items}")]
    rows += [(f"kappa {pair}", _number(one)) for pair, one in found.people.items()]
    rows += [] if found.alpha is None else [("alpha of people", f"{found.alpha:.2f}")]
    rows += [(f"kappa judge/{who}", _number(one)) for who, one in found.judge.items()]
    rows += [("people disagree on", ", ".join(found.split))] if found.split else []
    rows += [("judge differs on", ", ".join(found.against_judge))] if found.against_judge else []
    return table(("WHAT", "VALUE"), rows)


def _number(one: Estimate) -> str:
    return f"{one.value:.2f} [{one.interval.low:.2f}, {one.interval.high:.2f}] (n {one.n})"
