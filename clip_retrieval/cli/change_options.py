"""Options and words that the commands which change a running service share."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import httpx
import typer

from clip_retrieval.cli import console
from clip_retrieval.client import Client
from clip_retrieval.client.endpoints import service_error
from clip_retrieval.client.retries import PATIENCE_S, PATIENT, Retries
from clip_retrieval.records import Scalar, Split

LOCAL = "http://localhost:3000"


At = Annotated[str, typer.Option("--at", metavar="URL", help="The URL of the running service.")]
CaptionTexts = Annotated[
    list[str] | None, typer.Option("--caption", metavar="TEXT", help="A caption; repeat the option for several.")
]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="FIELD=VALUE", help="The value of a field; repeat the option for several."),
]
SplitOption = Annotated[Split | None, typer.Option("--split", help="The split; drawn for a new image if left out.")]


def patient() -> Retries:
    """The patience of a command that sends many requests: it says what it waits for, each reason once."""
    said = set[str]()

    def say(refusal: httpx.Response) -> None:
        reason = str(service_error(refusal))
        if reason not in said:
            said.add(reason)
            console.note(f"{reason}; waiting for at most {PATIENCE_S // 60} minutes")

    return replace(PATIENT, on_wait=say)


def metadata_of(given: Sequence[str], client: Client, *, removes: bool = False) -> dict[str, Scalar]:
    """The values of ``FIELD=VALUE``, in the type of a field that the collection has; a new field gets text.

    With ``removes`` an empty value is None, which removes the field. Raises typer.BadParameter for what cannot be read.
    """
    if not given:
        return {}
    kinds = {field.name: field.type for field in client.fields().fields}
    values: dict[str, Scalar] = {}
    for one in given:
        name, sign, value = one.partition("=")
        if not sign or not name:
            raise typer.BadParameter(f"{one} is not FIELD=VALUE", param_hint="--metadata")
        if name in values:
            raise typer.BadParameter(f"{name} is given twice; give it once", param_hint="--metadata")
        values[name] = None if removes and not value else _typed(name, value, kinds.get(name, "text"))
    return values


def _typed(name: str, value: str, kind: str) -> Scalar:
    if kind == "boolean":
        if value.lower() not in {"true", "false"}:
            raise typer.BadParameter(f"{name} is true or false, not {value}", param_hint="--metadata")
        return value.lower() == "true"
    if kind == "number":
        try:
            return int(value)
        except ValueError:
            pass
        try:
            return float(value)
        except ValueError:
            raise typer.BadParameter(f"{name} is a number, not {value}", param_hint="--metadata") from None
    return value
