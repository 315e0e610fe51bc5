"""The encoder service as BentoML's ``depends`` gives it: a proxy that sends messages over HTTP.

The proxy itself tries nothing twice. A connection that the other side closed while it was idle, or whose process was
just replaced, is no reason to refuse a query, so such a message is sent once more: encoding twice does no harm.
"""

import asyncio
from typing import Any

import aiohttp
from bentoml.exceptions import BentoMLException

from clip_retrieval.errors import EncoderAway

AGAIN_S = 0.1
"""Seconds until a message whose connection broke is sent once more."""


class EncoderProxy:
    """``EncoderService`` by BentoML's proxy of one. Every failure is EncoderAway."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self._is_entered = False

    async def fingerprint(self) -> str:
        return str(await self._answer("fingerprint"))

    async def encode_texts(self, texts: list[list[int]]) -> list[str]:
        return list(await self._answer("encode_texts", texts=texts))

    async def encode_images(self, images: list[str]) -> list[str]:
        return list(await self._answer("encode_images", images=images))

    async def _answer(self, api: str, **inputs: object) -> Any:
        if not self._is_entered:  # BentoML enters a proxy too, after a service has started
            await self._proxy.__aenter__()
            self._is_entered = True
        try:
            try:
                return await self._proxy.call(api, **inputs)
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(AGAIN_S)
                return await self._proxy.call(api, **inputs)
        except (aiohttp.ClientError, TimeoutError) as error:
            what = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise EncoderAway(f"the encoder service does not answer ({what})") from error
        except BentoMLException as error:
            raise EncoderAway(
                f"the encoder service answers {error.error_code.value}: {str(error)[:200]}; its log says why"
            ) from error
