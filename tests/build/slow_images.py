"""Images that take their time and write down that they were read, for tests that stop a build in the middle."""

import time
from dataclasses import dataclass
from pathlib import Path

from clip_retrieval.build.embed_blocks import BlockEngine
from clip_retrieval.build.embed_ray import RayWorkers
from clip_retrieval.build.pipeline import Options, building
from clip_retrieval.progress import Silent
from clip_retrieval.records import CaptionedImage, Reject, SourceCaption
from tests.samples import MemorySource, captions_of, image_of, png

PER_BLOCK = 4


@dataclass(frozen=True)
class SlowBlob:
    """An image that can be read everywhere; every reading is a line of the file ``log``."""

    name: str
    log: str
    seconds: float

    def read(self, limit: int) -> bytes:
        """The bytes of a PNG file."""
        time.sleep(self.seconds)
        with Path(self.log).open("a") as log:
            log.write(f"{self.name}\n")
        number = int(self.name)
        return png(image_of(f"red-{('bright', 'soft', 'dull')[number % 3]}.png", size=10 + number))[: limit + 1]


def source(log: Path, images: int, seconds: float) -> MemorySource:
    """``images`` different squares; one in the middle is a reject of the source."""
    items: list[CaptionedImage | Reject] = [
        CaptionedImage(
            str(number),
            SlowBlob(str(number), str(log), seconds),
            tuple(SourceCaption(text, str(n)) for n, text in enumerate(captions_of("red-soft.png"))),
        )
        for number in range(images)
    ]
    items.insert(images // 2, Reject("line 7", "odd"))
    return MemorySource(items)


def readings(log: Path) -> list[str]:
    """The names of the images that were read, in this order; nobody reads for the choice of thumbnails."""
    return log.read_text().split() if log.exists() else []


def main(log: str, encoder: str, workspace: str, images: str, seconds: str) -> None:
    """A build on a local Ray, to be killed."""
    with building(
        source(Path(log), int(images), float(seconds)),
        "a name",
        Path(encoder),
        Path(workspace),
        Options(thumbnails_mb=0),
        Silent(),
        place="slow images",
        engine=BlockEngine(RayWorkers(cpus=1), size=PER_BLOCK),
    ):
        pass
