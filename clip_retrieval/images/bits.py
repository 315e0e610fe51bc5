"""Reading bits, first the highest of each byte, as the headers of video codecs are written."""


class Bits:
    """The bits of ``data``. Past the end all of them are zero, as in a header that was cut off."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        """The next ``count`` bits as a number."""
        self._left -= count
        shifted = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return shifted & ((1 << count) - 1)

    def flag(self) -> bool:
        return bool(self.read(1))

    def exponential(self) -> int:
        """A number in an exponential Golomb code (``ue(v)`` of H.265, ``uvlc()`` of AV1)."""
        zeros = 0
        while self._left > 0 and not self.flag():
            zeros += 1
        return (1 << min(zeros, 32)) - 1 + self.read(min(zeros, 32))
