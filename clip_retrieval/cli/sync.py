"""``bento-clip sync``: make an artifact or a running service equal to a source."""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from clip_retrieval.artifacts import modelstore
from clip_retrieval.build.check import check_source, read_source
from clip_retrieval.build.pipeline import Options
from clip_retrieval.build.plan import Plan
from clip_retrieval.build.seen_files import SeenFiles
from clip_retrieval.cli import console
from clip_retrieval.cli.change_options import patient
from clip_retrieval.cli.options import (
    AllowTruncated,
    AsJson,
    CaptionColumns,
    DryRun,
    Encoding,
    ImageColumn,
    Keep,
    Key,
    MaxBytes,
    MaxPixels,
    NoCaptions,
    SourcePath,
    Wait,
    require_no_key,
    require_not_given,
    source_options,
)
from clip_retrieval.cli.pruned import pruned_json, show_pruned
from clip_retrieval.cli.publish import seen_files
from clip_retrieval.cli.sync_target import ArtifactTarget, Look, Outcome, ServiceTarget, Target
from clip_retrieval.cli.watching import changes_of
from clip_retrieval.client import Client
from clip_retrieval.datasets.base import absolute
from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.datasets.place import SourceOptions
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.images.decode import Limits
from clip_retrieval.records import CaptionedImage, Reject
from clip_retrieval.urls import is_url, shown_place

AGAIN_S = 5
"""Seconds after which a round that failed is tried again while a folder is watched."""
SHOWN = 20


def sync(
    context: typer.Context,
    source: SourcePath,
    to: Annotated[
        str, typer.Option(metavar="TAG|URL", help="A tag of the model store, or the URL of a running service.")
    ] = modelstore.LATEST,
    dry_run: DryRun = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Remove what the source lacks, also more than half, and where a part of it cannot be read."
        ),
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on, and look again whenever something in the folder changes.")
    ] = False,
    keep: Keep = None,
    recall: Annotated[
        float, typer.Option(min=0, max=1, help="For a tag: the least recall of an index, at k = 1, 10 and 50.")
    ] = Options.recall,
    image_column: ImageColumn = None,
    caption_columns: CaptionColumns = [],  # noqa: B006 - Typer makes a list of its own for each call
    encoding: Encoding = None,
    no_captions: NoCaptions = False,
    wait: Wait = True,
    key: Key = None,
    as_json: AsJson = False,
    max_pixels: MaxPixels = Limits.max_pixels,
    max_bytes: MaxBytes = Limits.max_bytes,
    allow_truncated: AllowTruncated = Limits.allow_truncated,
) -> None:
    """Make a collection equal to a source: add, change and remove what differs.

    To a tag, this builds the next version with the encoder, the name and the splits of that artifact; only what is new
    is encoded. To a URL, the images of the service are changed one by one while it answers searches. The exit status is
    1 if anything was rejected.

    Examples:

    ```
    bento-clip sync my-photos --dry-run
    bento-clip sync my-photos --to clip-retrieval:latest --keep 5
    bento-clip sync my-photos --to http://localhost:3000 --watch
    ```
    """
    to_service = to.startswith(("http://", "https://"))
    if watch and is_url(source):
        raise typer.BadParameter("only a folder of this machine can be watched", param_hint="--watch")
    if watch and dry_run:
        raise typer.BadParameter("a dry run ends with its plan; leave --watch out", param_hint="--dry-run")
    if to_service and keep is not None:
        raise typer.BadParameter("a service has no versions to delete", param_hint="--keep")
    if to_service:
        require_not_given(context, "it is for a tag, of which the next version is built", "--recall", "--wait")
    bars = console.Bars()
    limits = Limits(max_bytes=max_bytes, max_pixels=max_pixels, allow_truncated=allow_truncated)
    options = source_options(image_column, caption_columns, encoding, no_captions=no_captions)
    with ExitStack() as stack:
        seen = stack.enter_context(seen_files(stay_open=watch))
        target: Target
        if to_service:
            target = ServiceTarget(to, Client(to, key=key, retries=patient()), limits, bars)
        else:
            require_no_key(context)
            target = ArtifactTarget(to, Options(recall=recall, limits=limits), keep, seen, bars, wait=wait)
        stack.callback(target.close)
        rounds = _Rounds(source, options, limits, target, seen, bars, force=force, dry_run=dry_run, as_json=as_json)
        if watch:
            _keep_on(rounds, changes_of(lambda: rounds.folders))
        elif rounds.run():
            raise typer.Exit(1)


class _Rounds:
    """Looks at the source and makes the target equal to it, as often as it is asked."""

    def __init__(
        self,
        source: str,
        options: SourceOptions,
        limits: Limits,
        target: Target,
        seen: SeenFiles,
        bars: console.Bars,
        *,
        force: bool,
        dry_run: bool,
        as_json: bool,
    ) -> None:
        self._source, self._options, self._limits = source, options, limits
        self._target, self._seen, self._bars = target, seen, bars
        self._force, self._dry_run, self._as_json = force, dry_run, as_json
        self._taken: list[str] = []
        self.folders: frozenset[Path] = frozenset() if is_url(source) else folders_of(Path(source))
        """What the source is read from: its folder, and since the first round those of its images elsewhere."""

    def run(self) -> bool:
        """One round; returns whether anything was rejected. Raises the errors of reading, building and the service."""
        data = read_source(self._source, self._bars, self._options)
        if (taken := list(data.taking.lines())) != self._taken:  # while a folder is watched it rarely changes
            console.taken(data.taking)
            self._taken = taken
        if not is_url(self._source):
            self.folders = folders_of(Path(self._source), data.items)
        report = check_source(data, shown_place(self._source), self._limits, self._bars, self._seen)
        hiding = [] if self._force else [item for item in data.items if isinstance(item, Reject) and item.may_hide]
        look = Look(data, report, data.place, hiding)
        plan = self._target.plan(look)
        if hiding and plan.unreadable:
            stay = f"{len(plan.unreadable)} images that {shown_place(self._source)} does not show stay"
            console.note(f"{stay}: {_first(hiding)}; correct that, or use --force to remove them")
        if self._dry_run:
            self._show(plan, None, report.rejects)
            return False
        if (hiding and plan.removed) or (plan.removes_most and not self._force):
            _confirm(plan, self._source, hiding)
        outcome = self._target.apply(look, plan)
        rejects = [*report.rejects, *outcome.refused]
        self._show(plan, outcome, rejects)
        return bool(rejects)

    def _show(self, plan: Plan, outcome: Outcome | None, rejects: Sequence[Reject]) -> None:
        if self._as_json:
            typer.echo(json.dumps(_json(plan, outcome, rejects), ensure_ascii=False))
            return
        if outcome is None:
            for sign, ids in (("+", plan.added), ("~", plan.changed), ("-", plan.removed)):
                _list(sign, ids)
        for reject in rejects[:SHOWN]:
            console.note(f"rejected {reject.where}: {reject.reason}")
        if len(rejects) > SHOWN:
            console.note(f"… and {len(rejects) - SHOWN} more rejected; --json has all of them")
        console.note(str(plan))
        if outcome is not None:
            show_pruned(outcome.pruned)
            typer.echo(outcome.place)


def _keep_on(rounds: _Rounds, looks: Iterable[bool]) -> None:
    """A round at the beginning and after every change; one that fails is said and tried again."""
    due, not_before = True, 0.0
    try:
        for changed in looks:
            due |= changed
            if not due or time.monotonic() < not_before:
                continue
            try:
                rounds.run()
                due = False
            except _Refused as error:
                console.note(f"not done: {error}")
                due = False
            except ClipRetrievalError as error:
                console.note(f"not done: {error}; trying again in {AGAIN_S} seconds")
                not_before = time.monotonic() + AGAIN_S
    except KeyboardInterrupt:
        console.note("stopped")


class _Refused(ClipRetrievalError):
    """A plan that a person has to confirm."""


def _confirm(plan: Plan, source: str, hiding: Sequence[Reject]) -> None:
    """Go on if a person says so. Raises _Refused without a terminal."""
    question = f"{shown_place(source)} lacks {len(plan.removed)} of the collection's {plan.held} images"
    why = f", but {_first(hiding)}" if hiding else ""
    if not sys.stdin.isatty():
        question += why or ", more than half"
        raise _Refused(f"{question}; nothing was changed: check the source, or use --force")
    typer.confirm(f"{question}{why}. Remove them?", abort=True, err=True)


def _first(hiding: Sequence[Reject]) -> str:
    """What images may be behind, in words."""
    more = f", and {len(hiding) - 1} more" if len(hiding) > 1 else ""
    return f"images may be behind what cannot be read now ({hiding[0].where}: {hiding[0].reason}{more})"


def folders_of(source: Path, items: Iterable[CaptionedImage | Reject] = ()) -> frozenset[Path]:
    """The folder of a source on this machine, and those of its images that do not lie below it or each other."""
    folder = absolute(source if source.is_dir() else source.parent)
    blobs = [item.blob for item in items if isinstance(item, CaptionedImage)]
    others = {blob.path.parent for blob in blobs if isinstance(blob, FileBlob)}
    found = {folder, *(other for other in others if not other.is_relative_to(folder))}
    return frozenset(one for one in found if not any(above in found for above in one.parents))


def _list(sign: str, ids: Iterable[str]) -> None:
    listed = list(ids)
    for image_id in listed[:SHOWN]:
        console.out.print(f"{sign} {image_id}", soft_wrap=True, highlight=False)
    if len(listed) > SHOWN:
        console.out.print(f"{sign} … and {len(listed) - SHOWN} more; --json has all of them")


def _json(plan: Plan, outcome: Outcome | None, rejects: Sequence[Reject]) -> dict[str, Any]:
    done = None
    if outcome is not None:
        done = {"place": outcome.place, "sequence": outcome.sequence, "pruned": pruned_json(outcome.pruned)}
    rejected = [{"where": reject.where, "reason": reject.reason} for reject in rejects]
    return {"plan": plan.to_json(), "done": done, "rejected": rejected}
