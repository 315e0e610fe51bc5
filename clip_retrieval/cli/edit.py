"""``bento-clip edit``: change the captions and fields of an image of a running service."""

from typing import Annotated

import typer

from clip_retrieval.cli import console, given
from clip_retrieval.cli.change_options import LOCAL, At, CaptionTexts, Metadata, SplitOption, metadata_of
from clip_retrieval.cli.options import Key
from clip_retrieval.client import Client


def edit(
    image_id: Annotated[
        str, typer.Argument(parser=given.text, metavar="ID", help="The id of the image, as results show it.")
    ],
    at: At = LOCAL,
    captions: CaptionTexts = None,
    no_captions: Annotated[bool, typer.Option("--no-captions", help="Remove all captions of the image.")] = False,
    metadata: Metadata = None,
    split: SplitOption = None,
    key: Key = None,
) -> None:
    """Change an image of a running service. The captions that are given replace all that it had.

    FIELD= without a value removes a field; fields that are not named stay as they are.

    Examples:

    ```
    bento-clip edit park.jpg --caption "a dog in a park" --caption "a brown dog"
    bento-clip edit park.jpg --metadata year=2024 --metadata place=
    bento-clip edit park.jpg --split test --at http://photos.example:3000
    ```
    """
    if no_captions and captions:
        raise typer.BadParameter("give --caption or --no-captions, not both", param_hint="--no-captions")
    with Client(at, key=key) as client:
        changed = client.patch_image(
            image_id,
            captions=[] if no_captions else captions or None,
            metadata=metadata_of(metadata or [], client, removes=True) or None,
            split=split,
        )
    console.note(f"{changed.image_id} is changed" if changed.changed else f"{changed.image_id} was so already")
