"""S3 and Google Cloud Storage by pyarrow's file systems.

Credentials are found as AWS's and Google's own tools find them: in the environment, in files, on the machine. A URL may
end in ``?anonymous=true`` for a public bucket, and have ``region``, ``scheme`` and ``endpoint_override``, as pyarrow
names them. ``AWS_ENDPOINT_URL`` names another server that speaks S3.
"""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, parse_qsl

from pyarrow import fs

from clip_retrieval.datasets.store import Listing
from clip_retrieval.errors import SourceError
from clip_retrieval.urls import shown_place

_OPTIONS = frozenset({"anonymous", "region", "scheme", "endpoint_override"})
_CONNECT_S = 5
_RETRY_S = 3
"""Google's client tries again for so long; ``remote_file.py`` then tries the whole read again."""
_OPEN_FILES = 8
_REFUSED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN|INVALID_CLIENT_TOKEN|UNRECOGNIZED_CLIENT"
    r"|MISSING_AUTHENTICATION|PERMISSION_DENIED|UNAUTHENTICATED|OAuth2 access token|Anonymous caller"
)
_NO_BUCKET = re.compile(r"NO_SUCH_BUCKET|bucket does not exist|Bucket '[^']*' not found", re.IGNORECASE)
_HELP = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account",
}


class ArrowStore:
    """A bucket, or a folder or a file in it."""

    def __init__(self, url: SplitResult, system: Any = None) -> None:
        """Connects to nothing yet, except to find the region of a bucket. Raises OSError and SourceError.

        ``system`` is the file system of pyarrow that is asked, by default the one that the URL says.
        """
        self._url, self._given = url, system
        self.scheme, self.bucket = url.scheme, url.netloc
        # Other names are as they stand: what writes into a bucket may itself have put % into them.
        self.path = f"{url.netloc}/{url.path.strip('/')}".rstrip("/").replace("%23", "#")
        if "//" in self.path:
            raise SourceError(f"{shown_place(url.geturl())}: a folder in a bucket has a name; write one slash there")
        options = dict(parse_qsl(url.query))
        if unknown := ", ".join(sorted(options.keys() - _OPTIONS)):
            raise SourceError(f"unknown option {unknown} in the URL; there are {', '.join(sorted(_OPTIONS))}")
        try:
            self._system = system or (_s3(self.bucket, options) if self.scheme == "s3" else _gcs(options))
        except OSError as error:
            raise self._explained(error) from error
        self._open = lru_cache(_OPEN_FILES)(self._system.open_input_file)

    def __reduce__(self) -> tuple[object, ...]:
        """Another process connects by itself, with the credentials that it finds."""
        return ArrowStore, (self._url, self._given)

    def listing(self) -> Listing:
        """What lies there. Raises FileNotFoundError, PermissionError or ConnectionError with the reason."""
        try:
            info = self._system.get_file_info(self.path)
            if info.type == fs.FileType.File:
                return self._beside(info)
            found = self._system.get_file_info(fs.FileSelector(self.path, recursive=True))
        except OSError as error:
            raise self._explained(error) from error
        return Listing(None, _relative(found, self.path))

    def _beside(self, info: Any) -> Listing:
        """The file alone, or with what lies beside it if that can be listed."""
        folder = self.path.rpartition("/")[0]
        only = info.base_name
        try:
            # A table may name images in folders below; a tar needs its neighbours at most, and buckets are large.
            selector = fs.FileSelector(folder, recursive=not only.lower().endswith(".tar"))
            files = _relative(self._system.get_file_info(selector), folder)
        except OSError:
            files = {}
        return Listing(only, {only: (info.path, info.size), **files})

    def read(self, path: str, offset: int, size: int) -> bytes:
        """``size`` bytes of an object. Raises as ``listing`` does."""
        try:
            data = bytes(self._open(path).read_at(size, offset))
            if len(data) < size:
                raise ConnectionError(f"{len(data)} of {size} bytes came")
            return data
        except OSError as error:
            # A connection that ended inside the headers can leave an open file with a wrong size.
            self._open.cache_clear()
            raise self._explained(error) from error
        except ValueError as error:  # pyarrow says of an object in Google's store whose connection was lost: closed
            self._open.cache_clear()
            raise ConnectionError("the connection was lost") from error

    def delete(self, path: str) -> None:
        """Delete an object, if there is one. Raises as ``listing`` does."""
        try:
            self._system.delete_file(path)
        except OSError as error:
            explained = self._explained(error)
            if not isinstance(explained, FileNotFoundError):
                raise explained from error

    def size(self, path: str) -> int | None:
        """The bytes of an object now; None if there is none. Raises as ``listing`` does."""
        try:
            info = self._system.get_file_info(path)
        except OSError as error:
            raise self._explained(error) from error
        return info.size if info.type == fs.FileType.File else None

    def now(self, path: str, limit: int) -> bytes:
        """At most ``limit`` bytes of an object as it is now. Raises as ``listing`` does."""
        try:
            with self._system.open_input_stream(path) as file:
                return bytes(file.read(limit))
        except OSError as error:
            explained = self._explained(error)
            if isinstance(explained, FileNotFoundError) and not self._has_bucket():
                raise FileNotFoundError(f"there is no bucket {self.bucket!r}") from error
            raise explained from error

    def _has_bucket(self) -> bool:
        """False if the bucket is known to be missing: of an object that is not there the store says no more."""
        with suppress(OSError):
            return bool(self._system.get_file_info(self.bucket).type != fs.FileType.NotFound)
        return True

    def write(self, path: str, parts: Iterable[bytes]) -> None:
        """Make or replace an object. Raises as ``listing`` does; then a part of it may be left there."""
        try:
            with self._system.open_output_stream(path) as file:
                for part in parts:
                    file.write(part)
        except OSError as error:
            raise self._explained(error) from error

    def _explained(self, error: OSError) -> OSError:
        said = " ".join(str(error).split())
        if _NO_BUCKET.search(said):
            return FileNotFoundError(f"there is no bucket {self.bucket!r}")
        if isinstance(error, FileNotFoundError) or "No such file or directory" in said:  # Google's is a plain OSError
            return FileNotFoundError(f"the bucket {self.bucket!r} has no object and no folder of this name")
        if found := _REFUSED.search(said):
            return PermissionError(
                f"the store refuses access ({found[0]}): {_HELP[self.scheme]};"
                " for a public bucket add ?anonymous=true to the URL"
            )
        found = re.search(r"Details: (.*)", said) or re.search(r"AWS Error (\w+)|CURL error (.*?) error_info", said)
        return ConnectionError(next(filter(None, found.groups())) if found else said)


def _s3(bucket: str, options: dict[str, str]) -> Any:
    endpoint = (
        options.get("endpoint_override") or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    )
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return fs.S3FileSystem(
        anonymous=_is_true(options),
        region=region or ("us-east-1" if endpoint else fs.resolve_s3_region(bucket)),
        scheme=options.get("scheme"),
        endpoint_override=endpoint,
        connect_timeout=_CONNECT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
    )


def _gcs(options: dict[str, str]) -> Any:
    return fs.GcsFileSystem(
        anonymous=_is_true(options),
        scheme=options.get("scheme"),
        endpoint_override=options.get("endpoint_override"),
        retry_time_limit=timedelta(seconds=_RETRY_S),
    )


def _is_true(options: dict[str, str]) -> bool:
    value = options.get("anonymous", "false").lower()
    if value not in {"true", "false"}:
        raise SourceError(f"anonymous={value} in the URL is neither true nor false")
    return value == "true"


def _relative(found: Any, folder: str) -> dict[str, tuple[str, int]]:
    return {
        info.path.removeprefix(f"{folder}/"): (info.path, info.size) for info in found if info.type == fs.FileType.File
    }
