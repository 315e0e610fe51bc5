"""``bento-clip mcp``: a running service as tools of an assistant, by the Model Context Protocol."""

from typing import Annotated

import typer

from clip_retrieval.cli.change_options import LOCAL
from clip_retrieval.cli.options import Key
from clip_retrieval.client import AsyncClient
from clip_retrieval.client.endpoints import checked_url, key_header
from clip_retrieval.errors import MissingExtra


def mcp_command(
    source: Annotated[str, typer.Option("--in", metavar="URL", help="The URL of the running service.")] = LOCAL,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Also let images be added, changed and removed; needs such a key.")
    ] = False,
    key: Key = None,
) -> None:
    """Give an assistant tools to search a running service: search_images, find_similar, describe_collection,
    describe_image. It speaks the Model Context Protocol on standard input and output.

    It only reads, unless --allow-changes. The variable BENTO_CLIP_KEY brings the API key. An assistant starts the
    command itself: see docs/clients.md for its configuration.

    Examples:

    ```
    bento-clip mcp
    bento-clip mcp --in https://photos.example.org --allow-changes
    ```
    """
    try:
        from clip_retrieval.cli.mcp_tools import server
    except ModuleNotFoundError as error:
        raise MissingExtra(f"the Model Context Protocol ({error.name})", "mcp") from None
    if not source.startswith(("http://", "https://")):
        raise typer.BadParameter(f"{source} is not the URL of a service, such as {LOCAL}", param_hint="--in")
    checked_url(source)  # refused here, and not in the middle of a conversation
    key_header(key)
    server(lambda: AsyncClient(source, key=key), allow_changes=allow_changes).run("stdio")
