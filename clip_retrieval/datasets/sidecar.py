"""A folder in which ``cat.txt`` has the captions of ``cat.jpg``, one per line."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from clip_retrieval.datasets.base import FolderSource, find_images
from clip_retrieval.records import CaptionedImage, Reject, SourceCaption


class SidecarFolder(FolderSource):
    """Every image below a folder, with the non-empty lines of the text file of the same stem, if that exists.

    The relative path is the image_id. Text files without an image (a README) are skipped.
    """

    name: ClassVar[str] = "sidecar"

    def read(self) -> Iterator[CaptionedImage | Reject]:
        for found in find_images(self.root):
            if isinstance(found, Reject):
                yield found
                continue
            captions: list[SourceCaption] = []
            for line in self._lines(sidecar_of(found)):
                if isinstance(line, Reject):
                    yield line
                else:
                    captions.append(SourceCaption(line))
            blob = self.named(found)
            yield CaptionedImage(image_id=blob.name, blob=blob, captions=tuple(captions))

    def _lines(self, path: Path) -> Iterator[str | Reject]:
        name = path.relative_to(self.root).as_posix()
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            yield Reject(name, f"cannot be read: {error.strerror}")
            return
        for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
            try:
                if text := line.decode().strip():
                    yield text
            except UnicodeDecodeError:
                yield Reject(f"{name} line {number}", "not UTF-8 text")


def sidecar_of(image: Path) -> Path:
    """The path that the captions of an image have, if there are any."""
    return image.with_suffix(".txt")


def has_sidecars(root: Path) -> bool:
    """Whether any image below ``root`` has a sidecar."""
    return any(isinstance(found, Path) and sidecar_of(found).is_file() for found in find_images(root))
