"""A folder in which ``cat.jpg`` has its captions in ``cat.txt``, one a line."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from clip_retrieval.datasets.base import Source, find_images
from clip_retrieval.records import CaptionedImage, Reject, SourceCaption


class SidecarFolder(Source):
    """Every image below a folder, with the non-empty lines of the text file of its stem if there is one.

    The relative path is the image_id. Text files without an image (a README) are passed over.
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
            name = found.relative_to(self.root).as_posix()
            yield CaptionedImage(image_id=name, path=found, image_path=name, captions=tuple(captions))

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
    """Where the captions of an image would be."""
    return image.with_suffix(".txt")


def has_sidecars(root: Path) -> bool:
    """Whether any image below ``root`` has a sidecar."""
    return any(isinstance(found, Path) and sidecar_of(found).is_file() for found in find_images(root))
