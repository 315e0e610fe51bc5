"""``bento-clip browse``: the images of an artifact or of a running service, filtered and sorted, without a query."""

import json
from typing import Annotated

import typer

from clip_retrieval.cli import console, where_option
from clip_retrieval.cli.local_retriever import load_retriever
from clip_retrieval.cli.options import LATEST, AsJson, Key, require_no_key
from clip_retrieval.cli.where_option import WhereOption
from clip_retrieval.client import Client
from clip_retrieval.contract.answers import ListedImage
from clip_retrieval.contract.base import MAX_K
from clip_retrieval.contract.queries import MAX_OFFSET, Sort
from clip_retrieval.search.results import listed_images

SHOWN = 20


def browse(
    context: typer.Context,
    source: Annotated[str, typer.Option("--in", help="An artifact's tag or folder, or the URL of a service.")] = LATEST,
    where: WhereOption = None,
    sort: Annotated[
        str | None, typer.Option(metavar="FIELD", help="The field to sort by; without it, the ids of the images.")
    ] = None,
    descending: Annotated[bool, typer.Option("--descending", help="The last first; no value stays last.")] = False,
    k: Annotated[int, typer.Option("-k", "--count", min=1, max=MAX_K, help="The number of images.")] = SHOWN,
    offset: Annotated[int, typer.Option(min=0, max=MAX_OFFSET, help="The number of images to skip.")] = 0,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show images by a filter alone, in the order of a field or of their ids.

    Examples:

    ```
    bento-clip browse --where "year >= 2020 and not place = Paris" --sort year --descending
    bento-clip browse --in http://localhost:3000 --where "split = test" --json
    ```
    """
    conditions = where_option.conditions(where or [])
    order = Sort(field=sort, descending=descending)
    images: list[ListedImage]
    if source.startswith(("http://", "https://")):
        with Client(source, key=key) as client:
            answer = client.browse(k=k, offset=offset, where=conditions, sort=order)
        images, next_offset = answer.results, answer.next_offset
    else:
        require_no_key(context)
        retriever = load_retriever(source, "browsing an artifact, and not a service by --in URL")
        found = retriever.browse(k=k, offset=offset, where=conditions, sort=order)
        images, next_offset = listed_images(found), found.next_offset
    if as_json:
        typer.echo(json.dumps([image.model_dump() for image in images], ensure_ascii=False))
        return
    console.listed_table(images, sort)
    console.next_page(next_offset, offset, k, len(images))
