"""Hugging Face's hub, and single files of web servers, by fsspec's file systems.

A token for the hub is found as its own tools find it, in ``HF_TOKEN`` or where ``hf auth login`` put it. A web server
lists no folders, so a URL with ``https`` is that of one file; the server has to serve parts of it (Range, RFC 9110).
"""

import asyncio
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import aiohttp
import fsspec
import httpx2

from clip_retrieval.datasets.store import Listing
from clip_retrieval.errors import SourceError

_CONNECT_S = 10
_READ_S = 30
_FAILURES = (OSError, aiohttp.ClientError, httpx2.HTTPError, asyncio.TimeoutError)
"""What the two file systems let through."""


class FsspecStore:
    """A folder or a file of the hub, or a file of a web server."""

    def __init__(self, url: SplitResult, hub: str | None = None) -> None:
        """``hub`` is the address of a hub, by default the one that ``HF_ENDPOINT`` names."""
        self._url, self._hub = url, hub
        self.scheme = url.scheme
        if self.scheme == "hf":
            self.path = f"{url.netloc}{unquote(url.path)}".rstrip("/")
            self._system = fsspec.filesystem("hf", endpoint=hub, skip_instance_cache=True)
        else:
            self.path = url.geturl()
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_READ_S)
            self._system = fsspec.filesystem(
                self.scheme, skip_instance_cache=True, client_kwargs={"timeout": timeout}, encoded=True
            )

    def __reduce__(self) -> tuple[object, ...]:
        """Another process connects by itself, with the token that it finds."""
        return FsspecStore, (self._url, self._hub)

    def listing(self) -> Listing:
        """What lies there. Raises FileNotFoundError, PermissionError or ConnectionError with the reason."""
        try:
            info = self._system.info(self.path)
            if self.scheme != "hf":
                return self._one(info)
            if info["type"] == "file":
                return Listing(PurePosixPath(info["name"]).name, self._below(info["name"].rpartition("/")[0]))
            return Listing(None, self._below(info["name"]))
        except _FAILURES as error:
            raise self._explained(error) from error

    def _below(self, folder: str) -> dict[str, tuple[str, int]]:
        found = self._system.find(folder, detail=True)
        return {path.removeprefix(f"{folder}/"): (path, info["size"]) for path, info in sorted(found.items())}

    def _one(self, info: dict[str, Any]) -> Listing:
        name = PurePosixPath(unquote(urlsplit(self.path).path)).name
        size = info.get("size")
        try:
            if size is None or not info.get("partial", True):
                raise ValueError("the server says so itself")
            self.read(name, max(size - 1, 0), min(size, 1))
        except ValueError as error:
            raise SourceError(
                f"{name} cannot be read in place: the server serves no parts of files (Range); download it first"
            ) from error
        return Listing(name, {name: (name, size)})

    def read(self, path: str, offset: int, size: int) -> bytes:
        """``size`` bytes of a file. Raises as ``listing`` does, and ValueError if a server serves no parts of files."""
        # Users never see the URL of a web server again: its query may be a signature.
        target = path if self.scheme == "hf" else self.path
        try:
            # Without a cache: the images of a tar are small, and read in any order.
            with self._system.open(target, "rb", cache_type="none") as file:
                file.seek(offset)
                data = bytes(file.read(size))
            if len(data) < size:
                raise ConnectionError(f"{len(data)} of {size} bytes came")
            return data
        except _FAILURES as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> OSError:
        """The error as one that says what is to be done. fsspec wraps some failures to connect in FileNotFoundError."""
        reason = error.__cause__ if isinstance(error.__cause__, aiohttp.ClientError | TimeoutError) else error
        response = getattr(reason, "response", None)
        status = getattr(reason, "status", None) or getattr(response, "status_code", None)
        if status in {401, 403}:
            hint = "; set HF_TOKEN, or accept the conditions of the data set" if self.scheme == "hf" else ""
            return PermissionError(f"the server refuses access ({status}){hint}")
        if status == 404 or (status is None and isinstance(reason, FileNotFoundError)):
            return FileNotFoundError("the file or the data set does not exist")
        said = " ".join(str(reason).replace(self.path, "the file").split())
        return ConnectionError(said or type(reason).__name__)
