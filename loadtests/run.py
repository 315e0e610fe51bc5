"""One command for a load test: starts the service if no host is given, runs Locust, judges and reports.

The folder ``--out`` gets Locust's ``locust.html`` and ``locust_*.csv``, ``load.json``, ``load.png``, the raw samples
and the logs. The table and the violations go to standard error; the last line on standard output is the result as JSON.
Exit status: 0 all thresholds are met, 1 a threshold is violated, 2 the test could not be made.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from clip_retrieval.cores import usable_cores
from loadtests import plan, report, thresholds
from loadtests.composed import Offered
from loadtests.plan import Step
from loadtests.samples import SAMPLES_FILE, Outcome
from loadtests.summary import Machine, Result, kinds_of, read_samples, summarise
from loadtests.swapping import offered_by_both, swapping
from loadtests.target import CannotRun, served, service_info, synthetic_artifact
from loadtests.thresholds import Thresholds
from scripts.common import machine
from scripts.common.console import err
from scripts.common.paths import ROOT

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

SHORT_SECONDS = 3.0
FULL_SECONDS = 20.0
ERRORS = 3
"""Locust's exit status after failed requests, which the thresholds judge, or after an exception in a user's code."""


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def main(
    host: Annotated[str, typer.Option(help="Address of a running service; by default one is started.")] = "",
    artifact: Annotated[str, typer.Option(help="Artifact to serve if no host is given; by default the newest.")] = "",
    rows: Annotated[
        int | None,
        typer.Option(min=1, help="Serve the benchmark's synthetic collection of so many images, with ViT-B/32."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("reports/load"),
    short: Annotated[bool, typer.Option("--short", help="Three steps of three seconds, to see that it works.")] = False,
    steps: Annotated[str, typer.Option(envvar="LOADTEST_STEPS", help="Users of each step, such as 1,8,64.")] = "",
    step_seconds: Annotated[
        float | None, typer.Option(min=1, envvar="LOADTEST_STEP_SECONDS", help="Seconds a step; by default 20.")
    ] = None,
    recovery: Annotated[int | None, typer.Option(help="Users after the overload; one of the steps.")] = None,
    soak: Annotated[float | None, typer.Option(min=1, help="Minutes at --soak-users instead of steps.")] = None,
    soak_users: Annotated[int, typer.Option(min=1, help="Users of a soak.")] = 16,
    swap_to: Annotated[
        str, typer.Option(help="Artifact that the service swaps to, and back, while the load runs.")
    ] = "",
    swaps: Annotated[int, typer.Option(min=1, help="Swaps to make with --swap-to.")] = 100,
    users: Annotated[str, typer.Option(help="User classes of locustfile.py, separated by commas.")] = "Visitor",
    repeats: Annotated[float, typer.Option(min=0, max=1, help="Share of queries that repeat earlier ones.")] = 0.3,
    seed: Annotated[str, typer.Option(help="Seed of the queries; by default the time, so that they are new.")] = "",
    processes: Annotated[int, typer.Option(min=0, help="Worker processes of Locust; 0 for none.")] = 0,
    limits: Annotated[
        Path, typer.Option("--thresholds", show_default="loadtests/thresholds.toml", help="File of the thresholds.")
    ] = thresholds.DEFAULT,
    no_thresholds: Annotated[
        bool, typer.Option("--no-thresholds", help="Judge only that no request fails and no step is missing.")
    ] = False,
    print_plan: Annotated[bool, typer.Option("--print-plan", help="Print the plan as JSON and stop.")] = False,
) -> None:
    """Load-test the service: steps of more and more users to saturation and beyond, then back.

    Examples:

        python -m loadtests.run

        python -m loadtests.run --short --no-thresholds

        python -m loadtests.run --host http://localhost:3000 --steps 1,4,16,64 --step-seconds 30

        python -m loadtests.run --users TextSearch --repeats 0

        python -m loadtests.run --rows 8091 --users ComposedSearch

        python -m loadtests.run --soak 30 --soak-users 16

        python -m loadtests.run --soak 10 --soak-users 64 --swap-to clip-retrieval:b3b95fa0 --swaps 100
    """
    try:
        if rows is not None and (host or artifact):
            raise ValueError("--rows makes its own collection: leave --host and --artifact out")
        planned = _plan(short, steps, step_seconds, recovery, (soak, soak_users))
        judge = Thresholds() if no_thresholds else thresholds.load(limits)
        if print_plan:
            sys.stdout.write(plan.to_json(planned) + "\n")
            return
        seed = seed or str(time.time_ns())
        options = {"users": users, "rows": rows, "repeats": repeats, "seed": seed, "processes": processes}
        options |= {"swap_to": swap_to} if swap_to else {}
        out.mkdir(parents=True, exist_ok=True)
        what = synthetic_artifact(rows) if rows is not None else artifact or None
        with ExitStack() as stack:
            url = host.rstrip("/") or stack.enter_context(served(what, out / "service.log"))
            info = service_info(url)
            offered = offered_by_both(url, swap_to) if swap_to else None
            swapped = stack.enter_context(swapping(url, swap_to, swaps)) if swap_to else None
            cores = _locust(url, planned, out.resolve(), users.split(","), repeats, seed, processes, offered)
        samples = read_samples(out)
        result = Result(
            machine=Machine(cpu=machine.cpu(), cores=usable_cores()),
            commit=machine.commit(),
            service=info,
            options=options,
            generator_cores=cores,
            planned=[(step.phase, step.users) for step in planned],
            asked=kinds_of(samples),
            steps=summarise(planned, plan.read_windows(out), samples),
            swaps=swapped,
            violations=[],
        )
    except (CannotRun, OSError, ValueError) as error:
        err.print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    result = result.model_copy(update={"violations": thresholds.evaluate(result, judge)})
    _report(result, out)
    raise typer.Exit(1 if result.violations else 0)


def _plan(
    short: bool, steps: str, seconds: float | None, recovery: int | None, soak: tuple[float | None, int]
) -> list[Step]:
    minutes, soak_users = soak
    if minutes is not None:
        return plan.soak_plan(soak_users, minutes)
    default = plan.SHORT_STEPS if short else plan.FULL_STEPS
    users = [int(number) for number in steps.split(",")] if steps else default
    return plan.step_plan(users, seconds or (SHORT_SECONDS if short else FULL_SECONDS), recovery)


def _locust(
    url: str,
    planned: list[Step],
    out: Path,
    users: Sequence[str],
    repeats: float,
    seed: str,
    processes: int,
    offered: Offered | None,
) -> float:
    """Run Locust to its end; returns how many cores it used on average. Raises CannotRun if it broke."""
    for name in (SAMPLES_FILE, plan.WINDOWS_FILE):
        (out / name).unlink(missing_ok=True)
    command = [sys.executable, "-m", "locust", "--headless", "--only-summary", "--exit-code-on-error", str(ERRORS)]
    command += ["-f", "loadtests/locustfile.py,loadtests/shapes.py", "--host", url, "--plan", plan.to_json(planned)]
    command += ["--record", str(out), "--repeats", str(repeats), "--seed", seed]
    command += ["--csv", str(out / "locust"), "--csv-full-history", "--html", str(out / "locust.html")]
    if offered is not None:
        command += ["--offered", offered.to_json()]
    if processes:  # its master listens at every address otherwise, to anyone who calls itself a worker
        command += ["--processes", str(processes), "--master-bind-host", "127.0.0.1", "--master-host", "127.0.0.1"]
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with (out / "locust.log").open("wb") as log:
        child = subprocess.Popen([*command, *users], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _follow(child, planned, started)
    finally:
        if child.poll() is None:
            child.terminate()
        child.wait()
    failed = (read_samples(out)["outcome"] == Outcome.failed).any()
    if child.returncode not in {0, ERRORS} or (child.returncode == ERRORS and not failed):
        raise CannotRun(f"the load generator failed (exit status {child.returncode}); see {out / 'locust.log'}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return round(seconds / (time.monotonic() - started), 2)


def _follow(child: "subprocess.Popen[bytes]", planned: list[Step], started: float) -> None:
    total = sum(step.seconds for step in planned)
    columns = TextColumn("{task.description:<32}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("", total=total)
        while child.poll() is None:
            elapsed = min(time.monotonic() - started, total)
            index = plan.at(planned, elapsed)
            label = "finishing" if index is None else f"users: {planned[index].label}"
            progress.update(task, completed=elapsed, description=label)
            time.sleep(0.2)
        progress.update(task, completed=total)


def _report(result: Result, out: Path) -> None:
    (out / "load.json").write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
    report.plot(result, out / report.PLOT_FILE)
    err.print(report.table(result))
    best = result.saturation
    if best is not None and best == result.of("up")[-1]:
        err.print("the last step had the best throughput: saturation may be beyond it")
    for violation in result.violations:
        err.print(f"[red]violated:[/] {violation}", highlight=False, soft_wrap=True)
    err.print(f"report: {os.path.relpath(out)}/locust.html, load.json and {report.PLOT_FILE}", highlight=False)
    sys.stdout.write(report.line(result) + "\n")


if __name__ == "__main__":
    app()
