"""`evals`: judge releases through the running gateway, and read what was judged before."""

from __future__ import annotations

from evals.cli import aa, calibrate, compare, datasets, power, review, run, runs, suites, view
from registry import terminal
from registry.terminal import command_group

application = command_group("Judge a release on what users get, with intervals, and file signed evidence.")
application.command("run", epilog=run.EPILOG)(run.run_suite)
application.command("aa", epilog=aa.EPILOG)(aa.aa)
application.command("power", epilog=power.EPILOG)(power.plan)
application.command("validate", epilog="Example: evals validate suites/support.yaml")(suites.validate)
application.command("push", epilog="Example: evals push suites/support.yaml")(suites.push)
application.command("list", epilog="Example: evals list --limit 5")(runs.list_runs)
application.command("show", epilog="Example: evals show run_01k…")(runs.show_run)
application.command("compare", epilog=compare.EPILOG)(compare.compare)
application.command("view", epilog=view.EPILOG)(view.view)
application.command("verify", epilog="Example: evals verify out/evidence.json")(runs.verify)
application.command("calibrate", epilog=calibrate.EPILOG)(calibrate.calibrate)
datasets.add_to(application)
review.add_to(application)


def main() -> None:
    """The console script `evals`."""
    terminal.run(application)
