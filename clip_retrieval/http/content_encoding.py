"""Bodies that are packed (``Content-Encoding``, RFC 9110, section 8.4), unpacked while they come and within a limit."""

import zlib

READ = ("gzip", "deflate")
"""The codings that are read: gzip is RFC 1952; deflate is zlib's format, RFC 1950, or, as some send it, RFC 1951."""

_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


def unpacker_of(header: str) -> "Unpacker | None":
    """What unpacks a body with this Content-Encoding; None for one that is not packed. Raises ValueError."""
    name = header.strip().lower().removeprefix("x-")
    if name in {"", "identity"}:
        return None
    if name not in READ:
        raise ValueError(f"the Content-Encoding is {header}; this service reads {', '.join(READ)}, or a plain body")
    return Unpacker(name)


class Unpacker:
    """Unpacks one body, piece by piece."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stream = zlib.decompressobj(_GZIP) if name == "gzip" else None
        self._begun = False

    @property
    def is_complete(self) -> bool:
        """Whether the packed stream has ended, or an empty body was sent."""
        return not self._begun or (self._stream is not None and self._stream.eof)

    def unpack(self, packed: bytes, limit: int) -> bytes:
        """What this piece unpacks to, at most ``limit`` bytes of it. Raises ValueError for what is not packed so."""
        pieces: list[bytes] = []
        while packed:
            self._begun = True
            if self._stream is None:
                is_zlib = packed[0] & 15 == zlib.DEFLATED
                self._stream = zlib.decompressobj(_ZLIB if is_zlib else _RAW)
            if self._stream.eof:
                if self.name != "gzip":
                    raise ValueError(f"there is something behind the end of the {self.name} body")
                self._stream = zlib.decompressobj(_GZIP)  # RFC 1952, section 2.2: members follow each other
            try:
                pieces.append(self._stream.decompress(packed, limit))
            except zlib.error:
                raise ValueError(f"the body is not {self.name}, which its Content-Encoding says") from None
            limit -= len(pieces[-1])
            if limit <= 0:
                break
            packed = self._stream.unused_data
        return b"".join(pieces)
