"""``bento-clip remove``: remove images from a running service."""

from typing import Annotated

import typer

from clip_retrieval.cli import console, given
from clip_retrieval.cli.change_options import LOCAL, At, patient
from clip_retrieval.cli.options import Key
from clip_retrieval.client import Client, delete
from clip_retrieval.contract.changes import MAX_CHANGES


def remove(
    image_ids: Annotated[
        list[str], typer.Argument(parser=given.text, metavar="ID...", help="The ids of images, as results show them.")
    ],
    at: At = LOCAL,
    key: Key = None,
) -> None:
    """Remove images from a running service: from its results, its records and its thumbnails.

    Examples:

    ```
    bento-clip remove park.jpg
    bento-clip remove holidays/1.jpg holidays/2.jpg --at http://photos.example:3000
    ```
    """
    distinct = list(dict.fromkeys(image_ids))
    failed = 0
    with (
        Client(at, key=key, retries=patient()) as client,
        console.Bars().stage("removing images", len(distinct)) as advance,
    ):
        for start in range(0, len(distinct), MAX_CHANGES):
            part = distinct[start : start + MAX_CHANGES]
            for image_id, item in zip(part, client.change([delete(one) for one in part]).results, strict=True):
                if item.error is not None:
                    failed += 1
                    console.note(f"{image_id}: {item.error.detail}")
            advance(len(part))
    console.note(f"{len(distinct) - failed} removed" + (f", {failed} not" if failed else ""))
    if failed:
        raise typer.Exit(1)
