"""What an assistant can do with a running service: tools of the Model Context Protocol over the typed client.

https://modelcontextprotocol.io. Results have a line of text for each image, and its thumbnail behind. What
others wrote (ids, captions) stands in JSON.
"""

import base64
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ContentBlock, ImageContent, TextContent, ToolAnnotations
from pydantic import Field

from clip_retrieval import __version__
from clip_retrieval.client import AsyncClient, image, image_id, text
from clip_retrieval.contract.answers import CaptionResult, ImageResult
from clip_retrieval.contract.queries import Part
from clip_retrieval.errors import ClipRetrievalError, RequestRejected
from clip_retrieval.records import Mode, Scalar

MAX_SHOWN = 12
"""Images of one answer: an assistant has to look at each of them."""
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
ADDS = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
REMOVES = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)

INSTRUCTIONS = (
    "Searches a collection of images by what they show. Describe in a few words of plain English what should be seen; "
    "begin with describe_collection to learn what it holds and which fields can be filtered by. A score is a cosine: "
    "compare it with the other scores of the same answer only."
)

Shown = Annotated[int, Field(ge=1, le=MAX_SHOWN, description="How many images to show.")]
Filter = Annotated[
    dict[str, Any] | None,
    Field(
        description='Conditions on fields of describe_collection: {"year": {"gte": 2020}, "split": "train"}; '
        "operators are in, gt, gte, lt, lte, contains."
    ),
]
ModeOption = Annotated[
    Mode,
    Field(
        description="vector: by what the images show. words: by literal words of captions, file names and text fields; "
        "for names, numbers and file names. both: fused."
    ),
]
ImageId = Annotated[str, Field(description="The image_id of an image of the collection.")]
Answer = list[ContentBlock]
_Tool = Callable[..., Coroutine[Any, Any, Answer]]


def server(client: Callable[[], AsyncClient], *, allow_changes: bool = False) -> MCPServer:
    """The server of a service, which only reads unless ``allow_changes``. It opens and closes its own ``client``."""
    tools = _Tools(client)
    made = MCPServer(
        "bento-clip",
        title="Search images",
        version=__version__,
        instructions=INSTRUCTIONS,
        log_level="WARNING",
        lifespan=tools.open,
    )
    reading: tuple[_Tool, ...] = (
        tools.search_images,
        tools.find_similar,
        tools.describe_collection,
        tools.describe_image,
    )
    for tool in reading:
        made.add_tool(_told(tool), annotations=READS, structured_output=False)
    if allow_changes:
        adding: tuple[_Tool, ...] = (tools.add_image, tools.edit_captions)
        for tool in adding:
            made.add_tool(_told(tool), annotations=ADDS, structured_output=False)
        made.add_tool(_told(tools.remove_image), annotations=REMOVES, structured_output=False)
    return made


def _told(tool: _Tool) -> _Tool:
    """The tool, whose errors are sentences for the assistant."""

    @wraps(tool)
    async def told(*args: Any, **kwargs: Any) -> Answer:
        try:
            return await tool(*args, **kwargs)
        except (ClipRetrievalError, OSError) as error:
            raise ToolError(str(error)) from error

    return told


class _Tools:
    """The tools. The docstrings are what an assistant reads of them."""

    def __init__(self, client: Callable[[], AsyncClient]) -> None:
        self._make = client
        self._client: AsyncClient

    @asynccontextmanager
    async def open(self, _: "MCPServer[None]") -> AsyncIterator[None]:
        """Holds the connection to the service."""
        async with self._make() as self._client:
            yield

    async def search_images(
        self,
        words: Annotated[str, Field(description="What the images should show: a red panda in a tree.")],
        without: Annotated[str | None, Field(description="What they should not show.")] = None,
        k: Shown = 5,
        offset: Annotated[int, Field(ge=0, le=10_000, description="How many results to skip.")] = 0,
        where: Filter = None,
        mode: ModeOption = "vector",
        far: Annotated[bool, Field(description="Show images, too, that are probably not what is looked for.")] = False,
    ) -> Answer:
        """Find images of the collection by what they show, by words of their captions and names, or both.

        Images that are not near enough to the words are left out.
        """
        parts = [text(words), *([text(without, -0.5)] if without else [])]
        least = None if far or mode == "words" else (await self._client.info()).bound("text_to_image")
        return await self._found(parts, k=k, offset=offset, where=where, mode=mode, least=least)

    async def find_similar(
        self,
        like: Annotated[str, Field(description="An image_id, or the absolute path of an image file on this machine.")],
        words: Annotated[str | None, Field(description="What they should show beside.")] = None,
        k: Shown = 5,
        where: Filter = None,
    ) -> Answer:
        """Find images of the collection that look like another image."""
        is_file = Path(like).is_absolute() and Path(like).is_file()
        part = image(Path(like)) if is_file else image_id(like)
        return await self._found([part, *([text(words)] if words else [])], k=k, where=where, skip=like)

    async def describe_collection(self) -> Answer:
        """What the collection holds: how many images and captions, which model searches it, which fields it has."""
        info = await self._client.info()
        fields = await self._client.fields()
        lines = [f"{info.images} images with {info.captions} captions, searched with {info.model}.", *info.notes]
        for field in fields.fields:
            values = ", ".join(json.dumps(value.value, ensure_ascii=False) for value in field.values[:MAX_SHOWN])
            bounds = f"{field.min} to {field.max}" if field.type == "number" else values
            lines.append(f"- {field.name} ({field.type}, {field.count} images): {bounds}")
        return [_text("\n".join(lines))]

    async def describe_image(self, image: ImageId) -> Answer:
        """Everything that the collection holds about one image, the captions that fit it best, and the image itself."""
        info = await self._client.image(image)
        record = info.model_dump(include={"image_id", "image_path", "width", "height", "captions", "metadata", "split"})
        fits = (await self._client.search([image_id(image)], target="captions", k=3)).results
        near = [f"- {one.caption} ({one.similarity_score:.3f})" for one in fits if isinstance(one, CaptionResult)]
        lines = [json.dumps(record, ensure_ascii=False, indent=1), *(["captions that fit:", *near] if near else [])]
        return [_text("\n".join(lines)), *await self._thumbnail(image, "large")]

    async def add_image(
        self,
        path: Annotated[str, Field(description="The absolute path of an image file on this machine.")],
        image_id: Annotated[str | None, Field(description="Its id; by default the name of the file.")] = None,
        captions: Annotated[list[str] | None, Field(description="Sentences that say what it shows.")] = None,
        metadata: Annotated[dict[str, Scalar] | None, Field(description="Values of fields.")] = None,
    ) -> Answer:
        """Add an image file of this machine to the collection."""
        done = await self._client.add_image(Path(path), image_id=image_id, captions=captions or (), metadata=metadata)
        return [_text(f"added as {json.dumps(done.image_id, ensure_ascii=False)}")]

    async def edit_captions(
        self, image: ImageId, captions: Annotated[list[str], Field(description="All its captions from now on.")]
    ) -> Answer:
        """Replace the captions of an image."""
        await self._client.patch_image(image, captions=captions)
        return [_text("its captions are replaced")]

    async def remove_image(self, image: ImageId) -> Answer:
        """Remove an image from the collection. The file that it came from stays where it is."""
        await self._client.delete_image(image)
        return [_text("it is removed")]

    async def _found(
        self,
        parts: Sequence[Part],
        *,
        k: int,
        offset: int = 0,
        where: dict[str, Any] | None,
        skip: str = "",
        mode: Mode = "vector",
        least: float | None = None,
    ) -> Answer:
        answer = await self._client.search(
            parts, k=k + bool(skip), offset=offset, where=where, mode=mode, min_confidence=least
        )
        below = answer.below_confidence
        results = [one for one in answer.results if isinstance(one, ImageResult) and one.image_id != skip][:k]
        if not results and below:
            return [_text(f"Nothing here is near enough. With far=true there are {below} images, probably wrong ones.")]
        if not results:
            return [_text("Nothing is found: no image passes the filter." if where else "Nothing is found.")]
        content: Answer = []
        for one in results:
            content.append(_text(_line(one)))
            content += await self._thumbnail(one.image_id, "small")
        if below:
            content.append(_text(f"Nothing else is near enough. With far=true there are {below} more."))
        return content

    async def _thumbnail(self, name: str, size: Any) -> list[ContentBlock]:
        """The thumbnail of an image; nothing where the collection keeps none."""
        try:
            data = await self._client.thumbnail(name, size)
        except RequestRejected:
            return []
        return [ImageContent(type="image", data=base64.b64encode(data).decode(), mime_type="image/webp")]


def _line(result: ImageResult) -> str:
    told = {"image_id": result.image_id, "score": round(result.similarity_score, 3), "captions": result.captions}
    return json.dumps(told | ({"metadata": result.metadata} if result.metadata else {}), ensure_ascii=False)


def _text(words: str) -> TextContent:
    return TextContent(type="text", text=words)
