"""``bento-clip add``: add images to a running service."""

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from clip_retrieval.cli import console, given
from clip_retrieval.cli.change_options import LOCAL, At, CaptionTexts, Metadata, SplitOption, metadata_of, patient
from clip_retrieval.cli.options import AsJson, Key
from clip_retrieval.client import Client
from clip_retrieval.contract.changes import Changed
from clip_retrieval.errors import Forbidden, InvalidChange, ServiceError, Unauthorized, Unreachable
from clip_retrieval.parallel import map_ahead
from clip_retrieval.records import Scalar, Split

AT_ONCE = 4
"""Requests at the same time, so that the service encodes several images together."""

Outcome = Changed | ServiceError | InvalidChange | OSError


def add(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Image files.")],
    at: At = LOCAL,
    captions: CaptionTexts = None,
    metadata: Metadata = None,
    split: SplitOption = None,
    image_id: Annotated[
        str | None,
        typer.Option(
            "--id", parser=given.text, help="The id of the image, for one file; by default the name of the file."
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace images that have these ids already.")] = False,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Add images to a running service; they can be found as soon as the command ends.

    Captions, fields and split are those of every file that is named. The ids are printed, one a line.

    Examples:

    ```
    bento-clip add park.jpg --caption "a dog in a park"
    bento-clip add holidays/*.jpg --metadata year=2024 --at http://photos.example:3000
    bento-clip add new.jpg --id park.jpg --replace
    ```
    """
    if image_id is not None and len(files) > 1:
        raise typer.BadParameter(
            "one id is for one file; leave it out to use the names of the files", param_hint="--id"
        )
    for file in files:
        if file.is_dir():
            raise typer.BadParameter(f"{file} is a folder; name the files in it: {file}/*.jpg", param_hint="FILE")
    ids = _ids(files, image_id)
    with Client(at, key=key, retries=patient()) as client:
        fields = metadata_of(metadata or [], client)
        outcomes = _add_all(client, ids, captions or [], fields, split, replace=replace)
    _report(files, outcomes, as_json=as_json)


def _ids(files: Sequence[Path], image_id: str | None) -> list[tuple[Path, str]]:
    """Each file and the id of its image. Raises BadParameter for two files that would have the same."""
    ids = [(file, unicodedata.normalize("NFC", image_id or file.name)) for file in files]
    first: dict[str, Path] = {}
    for file, identity in ids:
        if (other := first.setdefault(identity, file)).absolute() != file.absolute():
            raise typer.BadParameter(
                f"{other} and {file} would both be {identity}; add one of them by itself with an --id of its own",
                param_hint="FILE",
            )
    return ids


def _add_all(
    client: Client,
    ids: Sequence[tuple[Path, str]],
    captions: Sequence[str],
    fields: dict[str, Scalar],
    split: Split | None,
    *,
    replace: bool,
) -> list[Outcome]:
    """What became of each file. Raises Unreachable, Unauthorized or Forbidden where the service takes none."""

    def one(each: tuple[Path, str]) -> Outcome:
        file, identity = each
        try:
            if replace:
                return client.put_image(
                    identity, file, captions=captions, metadata=fields, split=split, image_path=file.name
                )
            return client.add_image(file, image_id=identity, captions=captions, metadata=fields, split=split)
        except (Unreachable, Unauthorized, Forbidden):  # no other file would fare better
            raise
        except (ServiceError, InvalidChange, OSError) as error:
            return error

    outcomes = []
    with console.Bars().stage("adding images", len(ids)) as advance:
        for outcome in map_ahead(one, ids, ahead=2 * AT_ONCE, workers=AT_ONCE):
            outcomes.append(outcome)
            advance(1)
    return outcomes


def _report(files: Sequence[Path], outcomes: Sequence[Outcome], *, as_json: bool) -> None:
    made = [outcome for outcome in outcomes if isinstance(outcome, Changed)]
    if as_json:
        typer.echo(json.dumps([outcome.model_dump() for outcome in made], ensure_ascii=False))
    else:
        for changed in made:
            console.line(changed.image_id)
    for file, outcome in zip(files, outcomes, strict=True):
        if not isinstance(outcome, Changed):
            console.note(f"{file}: {outcome}")
    counts = {
        "added": sum(outcome.created for outcome in made),
        "replaced": sum(outcome.changed and not outcome.created for outcome in made),
        "there already": sum(not outcome.changed for outcome in made),
        "not added": len(outcomes) - len(made),
    }
    console.note(", ".join(f"{count} {what}" for what, count in counts.items() if count))
    if counts["not added"]:
        raise typer.Exit(1)
