"""``bento-clip mcp`` over a real service: the protocol's own client starts the command and talks to it over stdio."""

import asyncio
import base64
import io
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult, ImageContent, TextContent
from PIL import Image

from scripts.common.paths import ROOT
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server, Store
from tests.samples import png, square

pytestmark = pytest.mark.e2e

READING = {"search_images", "find_similar", "describe_collection", "describe_image"}
CHANGING = {"add_image", "edit_captions", "remove_image"}
T = TypeVar("T")


def talk(url: str, conversation: Callable[[Client], Awaitable[T]], *options: str, key: str = "") -> T:
    """What a conversation with the command gives."""
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "clip_retrieval", "mcp", "--in", url, *options],
        env={**os.environ, **({"BENTO_CLIP_KEY": key} if key else {})},
        cwd=str(ROOT),
    )

    async def run() -> T:
        async with Client(server, read_timeout_seconds=30) as client:
            return await conversation(client)

    return asyncio.run(run())


def words(result: CallToolResult) -> str:
    assert not result.is_error, result.content
    return "\n".join(one.text for one in result.content if isinstance(one, TextContent))


def images(result: CallToolResult) -> list[Image.Image]:
    found = [one for one in result.content if isinstance(one, ImageContent)]
    assert {one.mime_type for one in found} <= {"image/webp"}
    return [Image.open(io.BytesIO(base64.b64decode(one.data))) for one in found]


def test_it_only_reads_unless_it_is_let_change(service: Server) -> None:
    async def tools(client: Client) -> dict[str, bool]:
        listed = (await client.list_tools()).tools
        assert all(tool.description for tool in listed)
        return {tool.name: bool(tool.annotations and tool.annotations.read_only_hint) for tool in listed}

    assert talk(service.url, tools) == dict.fromkeys(READING, True)
    assert talk(service.url, tools, "--allow-changes") == dict.fromkeys(READING, True) | dict.fromkeys(CHANGING, False)


def test_an_assistant_learns_what_there_is_searches_it_and_sees_it(service: Server, tmp_path: Path) -> None:
    async def conversation(client: Client) -> list[CallToolResult]:
        return [
            await client.call_tool("describe_collection", {}),
            await client.call_tool("search_images", {"words": "red", "k": 3}),
            await client.call_tool("find_similar", {"like": "red-bright.png", "k": 2}),
            await client.call_tool("find_similar", {"like": str(blue), "k": 1}),
            await client.call_tool("describe_image", {"image": "red-soft.png"}),
        ]

    blue = tmp_path / "sky.png"
    blue.write_bytes(png(square("blue")))
    collection, found, near, of_file, one = talk(service.url, conversation)
    assert words(collection).startswith("24 images with 48 captions")
    assert '"image_id": "red-bright.png"' in words(found).splitlines()[0]
    assert len(images(found)) == 3
    assert "red-bright.png" not in words(near), "the image itself is no answer"
    assert len(images(near)) == 2
    assert "blue-bright.png" in words(of_file)
    assert '"a soft red square"' in words(one)
    assert "captions that fit:" in words(one)
    assert len(images(one)) == 1


def test_what_is_not_near_enough_is_left_out_and_shown_on_demand(photographs: Server) -> None:
    async def conversation(client: Client) -> list[CallToolResult]:
        asked = ("search_images", {"words": "a spaceship's cockpit", "k": 3})
        return [
            await client.call_tool(*asked),
            await client.call_tool(asked[0], {**asked[1], "far": True}),
            await client.call_tool("search_images", {"words": "a red panda", "k": 12}),
        ]

    none, far, some = talk(photographs.url, conversation)
    assert words(none) == "Nothing here is near enough. With far=true there are 3 images, probably wrong ones."
    assert len(images(far)) == 3
    assert "animals-red_panda.jpg" in words(some).splitlines()[0]
    assert words(some).splitlines()[-1].startswith("Nothing else is near enough. With far=true there are ")


WRONG: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("search_images", {"words": "  "}, "must have a character that is not white space"),
    ("search_images", {"words": "red", "where": {"year": {"near": 2020}}}, "unknown operator near"),
    ("search_images", {"words": "red", "k": 99}, "12"),
    ("describe_image", {"image": "no-such.png"}, "there is no image no-such.png"),
    ("find_similar", {"like": "no-such.png"}, "no-such.png"),
    ("add_image", {"path": "/tmp/red.png"}, "add_image"),
)


def test_what_is_wrong_is_told_in_words(service: Server) -> None:
    async def conversation(client: Client) -> list[CallToolResult]:
        return [await client.call_tool(tool, arguments) for tool, arguments, _ in WRONG]

    for result, (_, _, message) in zip(talk(service.url, conversation), WRONG, strict=True):
        assert result.is_error
        told = "".join(one.text for one in result.content if isinstance(one, TextContent))
        assert message in told
        assert "Traceback" not in told


def test_a_service_that_does_not_answer_is_told_in_words() -> None:
    url = f"http://127.0.0.1:{reserve_port()}"
    result = talk(url, lambda client: client.call_tool("describe_collection", {}))
    assert result.is_error
    assert "no answer" in str(result.content[0])


def test_with_allow_changes_images_come_change_and_go(launch: Launch, store: Store, tmp_path: Path) -> None:
    port = reserve_port()
    settings = {"BENTO_CLIP_ARTIFACT": store.tag, "BENTO_CLIP_CHANGES": str(tmp_path / "changes")}
    url = launch(bentoml_serve(port), port, **settings).wait_until_ready().url
    file = tmp_path / "new.png"
    file.write_bytes(png(square("red", size=20)))

    async def conversation(client: Client) -> list[str]:
        added = await client.call_tool("add_image", {"path": str(file), "captions": ["a new square"]})
        await client.call_tool("edit_captions", {"image": "new.png", "captions": ["a changed square"]})
        changed = await client.call_tool("describe_image", {"image": "new.png"})
        await client.call_tool("remove_image", {"image": "new.png"})
        gone = await client.call_tool("describe_image", {"image": "new.png"})
        return [words(added), words(changed), str(gone.is_error)]

    added, changed, is_gone = talk(url, conversation, "--allow-changes")
    assert added == 'added as "new.png"'
    assert "a changed square" in changed
    assert is_gone == "True"
