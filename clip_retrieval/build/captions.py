"""The text of a caption as it is stored, and an id for every caption."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from clip_retrieval.records import CaptionedImage, Reject, SourceCaption, ValidImage

# Characters that are invisible but not white space to Python: controls, lone surrogates, the zero-width space, the BOM.
# The zero-width joiners stay, since scripts and emoji need them.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b\ufeff\ud800-\udfff]")


def normalise_caption(text: str) -> str:
    """Unicode NFC, with each run of white space, controls and invisible characters as one space; may be empty."""
    return " ".join(_INVISIBLE.sub(" ", unicodedata.normalize("NFC", text)).split())


def check_captions(image: CaptionedImage) -> tuple[list[SourceCaption], list[Reject]]:
    """The normalised captions of an image, and a Reject for each empty caption.

    A caption without an id gets ``image_id#n``, where n is its place among the image's captions, from 0.
    """
    kept, rejects = [], []
    for number, caption in enumerate(image.captions):
        if text := normalise_caption(caption.text):
            caption_id = caption.caption_id or f"{image.image_id}#{number}"
            kept.append(replace(caption, text=text, caption_id=caption_id))
        else:
            rejects.append(Reject(f"{image.blob.name}, caption {number}", "the caption is empty"))
    return kept, rejects


def with_unique_ids(images: Sequence[ValidImage]) -> list[ValidImage]:
    """The images with a unique id for every caption.

    Captions that share an id (ids that start anew for each image, say) all get ``image_id#id``. If that id is used too,
    a number follows it.
    """
    uses = Counter(_ids(images))
    used = {identity for identity, count in uses.items() if count == 1}

    def identify(image: ValidImage, caption: SourceCaption) -> SourceCaption:
        if uses[caption.caption_id] == 1:
            return caption
        wanted = f"{image.image_id}#{caption.caption_id}"
        identity, attempt = wanted, 1
        while identity in used:
            attempt += 1
            identity = f"{wanted}~{attempt}"
        used.add(identity)
        return replace(caption, caption_id=identity)

    return [replace(image, captions=tuple(identify(image, caption) for caption in image.captions)) for image in images]


def _ids(images: Iterable[ValidImage]) -> Iterable[str | None]:
    return (caption.caption_id for image in images for caption in image.captions)
