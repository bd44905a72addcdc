"""`evals view`: a run as a page for the browser."""

from __future__ import annotations

import webbrowser
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import typer

from evals.report import folder, html_page
from registry import evaluations
from registry.errors import BadInput, NotFound
from registry.terminal import Json, show
from registry.workspace import Workspace, open_workspace

EPILOG = "Example: evals view out/ --output report.html   |   evals view run_01k… --serve 8090 --open"
_REQUEST_TIMEOUT_S = 10


def view(
    run: Annotated[
        str, typer.Argument(help="A folder of `run --output`, or a run's id.", show_default=False)
    ],
    *,
    output: Annotated[Path, typer.Option(help="Where the page is written.")] = Path("report.html"),
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    serve: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve it at 127.0.0.1 until Ctrl-C; 0 takes a free port."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run as one self-contained HTML page, or serve it on this machine only."""
    page, cases = page_of(run)
    if serve is None:
        folder.write_text(output, page)
        address = output.resolve().as_uri()
        show({"ok": True, "file": str(output), "cases": cases}, f"wrote {output}", as_json=as_json)
        if open_it:
            webbrowser.open(address)
        return
    with server(page, serve) as http:
        address = f"http://127.0.0.1:{http.server_port}/"
        show({"ok": True, "url": address, "cases": cases}, f"serving {address} until Ctrl-C", as_json=as_json)
        if open_it:
            webbrowser.open(address)
        http.serve_forever(poll_interval=0.2)


def page_of(name: str) -> tuple[str, bool]:
    """
    The HTML page of a folder or run, and whether it shows single cases.

    Raises:
        BadInput: the folder holds no report.
        NotFound: no run, or more than one, begins with *name*.
    """
    from evals.report import html

    path = Path(name)
    lines: Iterable[Mapping[str, Any]] = ()
    if path.exists():
        kept = folder.read(path)
        if kept.report is None:
            raise BadInput(f"{path}: report.json is missing beside it; `evals run --output` writes both")
        report, lines = kept.report, folder.read_lines(kept.lines)
        return html.render(report, lines), kept.lines is not None
    with open_workspace() as workspace:
        report = report_of(workspace, name)
    return html.render(report, lines), False


def report_of(workspace: Workspace, run: str) -> dict[str, Any]:
    """
    The report that was kept with the run whose id begins with *run*.

    Raises:
        NotFound: none, or more than one, does; or it was filed without a report.
    """
    with workspace.viewing("runs.list") as connection:
        known = evaluations.runs(connection, limit=10_000)
    found = [row for row in known if row["id"].startswith(run)]
    if len(found) != 1:
        problem = f"{len(found)} runs begin" if found else "no folder is called so and no run begins"
        raise NotFound(f"{problem} with {run!r}; `evals list` shows the runs")
    (row,) = found
    if "checks" not in row["summary"]:
        raise NotFound(f"run {row['id']} was filed without a report; `registry evidence show` has its claim")
    return {**row["summary"], "evidence": row["evidence"], "run": row["id"], "at": row["at"]}


def server(page: str, port: int) -> ThreadingHTTPServer:
    """A server of *page* at 127.0.0.1, and of nothing else. Raises BadInput when the port is taken."""
    handler = type("Page", (_Page,), {"page": page.encode()})
    try:
        http = ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise BadInput(f"port {port} cannot be used: {error.strerror}; --serve 0 takes a free one") from error
    http.daemon_threads = True
    return http


class _Page(BaseHTTPRequestHandler):
    timeout = _REQUEST_TIMEOUT_S

    page: bytes

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        if self.path != "/" or host not in {"127.0.0.1", "localhost"}:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(self.page)))
        self.send_header("Content-Security-Policy", html_page.POLICY)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(self.page)

    def log_message(self, *_args: object) -> None:
        """Say nothing: standard output is for the result."""
