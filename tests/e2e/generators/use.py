"""Uses the generated client as a person would: python use.py URL IMAGE."""

import json
import sys
from io import BytesIO
from pathlib import Path

from bento_clip_client import Client
from bento_clip_client.api.changes import add_image, delete_image
from bento_clip_client.api.collection import fields, image
from bento_clip_client.api.open_ai import create_embeddings
from bento_clip_client.api.search import search, search_captions, search_images
from bento_clip_client.models import (
    BodyAddImage,
    BodySearchCaptions,
    EmbeddingsRequest,
    FilterTree,
    Part,
    SearchImagesRequest,
    SearchRequest,
)
from bento_clip_client.types import File


def main(url: str, path: Path) -> None:
    client = Client(base_url=url)

    def file() -> File:
        return File(BytesIO(path.read_bytes()), file_name=path.name)

    found = search_images.sync(client=client, body=SearchImagesRequest(text="a red square", k=3))
    first = found.results[0]
    captions = search_captions.sync(client=client, body=BodySearchCaptions(file=file()), k=2)
    parts = [Part(text="red"), Part(image_id=first.image_id, weight=0.5)]
    where = FilterTree.from_dict({"split": {"in": ["train", "val", "test"]}})
    mixed = search.sync(client=client, body=SearchRequest(queries=parts, where=where))
    vectors = create_embeddings.sync(client=client, body=EmbeddingsRequest(input_=["red", "blue"]))
    names = fields.sync(client=client)
    body = BodyAddImage(file=file(), image_id="new", captions=["a new square"])
    added = add_image.sync(client=client, body=body)
    record = image.sync("new", client=client)
    delete_image.sync("new", client=client)
    gone = image.sync("new", client=client)
    told = {
        "first": first.image_id,
        "caption": captions.results[0].caption,
        "mixed": len(mixed.results),
        "vectors": len(vectors.data),
        "fields": [field.name for field in names.fields],
        "added": added.created,
        "captions": record.captions,
        "gone": gone.detail,
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
