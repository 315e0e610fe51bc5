"""The quality of a model on a collection: exact retrieval in both directions for each split, with intervals and misses.

The protocol is that of ``recall.py``. The gallery of a split contains that split and nothing else, as in published
numbers. Recall falls as a gallery grows, so recalls of galleries of different sizes cannot be compared. Images without
captions are part of the gallery, but they are not queries. Search is exact; ``index_report.py`` reports separately what
an index loses.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from clip_retrieval.encoders.base import Encoder
from clip_retrieval.errors import ModelUnavailable, SourceError
from clip_retrieval.evaluation.by_language import by_language, languages_of
from clip_retrieval.evaluation.by_mode import by_mode
from clip_retrieval.evaluation.direction import Pool, measured
from clip_retrieval.evaluation.embedded_dataset import EmbeddedDataset
from clip_retrieval.evaluation.recall import Ranks
from clip_retrieval.evaluation.reliability import reliability
from clip_retrieval.evaluation.report import Direction, Gallery, GalleryQuality, Miss, Quality, Result, title
from clip_retrieval.progress import Progress
from clip_retrieval.records import SPLITS, CaptionRecord, Way

RESULTS_PER_MISS = 3
"""The number of first results that are kept for each miss."""


def evaluate(
    data: EmbeddedDataset,
    split: Gallery,
    progress: Progress,
    *,
    worst: int = 20,
    resamples: int = 1000,
    seed: int = 0,
    encoder: Encoder | None = None,
) -> Quality:
    """Measure one split; with ``all``, every split that has captions and then the whole collection as one gallery.

    ``worst`` is the number of misses to keep for each direction. ``encoder`` is the one of ``data``; without it,
    searches by words are not measured (``by_mode.py``). Raises SourceError if the split has no captions, and
    ModelUnavailable if vectors contain NaN or infinity.
    """
    owners = {data.images[caption.image_row].split for caption in data.captions}
    wanted: list[Gallery] = [split] if split != "all" else [*(name for name in SPLITS if name in owners), "all"]
    if not owners:
        raise SourceError(f"{data.name} has no captions; evaluate a collection with captions")
    if split != "all" and split not in owners:
        held = ", ".join(name for name in SPLITS if name in owners)
        raise SourceError(f"the split {split} of {data.name} has no captions; splits with captions: {held}")
    try:
        galleries = tuple(_gallery(data, name, progress, worst, resamples, seed) for name in wanted)
        with progress.stage("measuring the confidence", None):
            reliable = reliability(data)
        with progress.stage("searching by words and vectors", None):
            modes = () if encoder is None else by_mode(data, encoder, seed=seed)
    except ValueError as error:
        raise ModelUnavailable(
            f"the vectors of {data.encoder.name} contain NaN or infinity; export or train the model again"
        ) from error
    return Quality(
        name=data.name,
        model=data.encoder.name,
        model_fingerprint=data.encoder.fingerprint,
        runtime=data.encoder.runtime,
        data_fingerprint=data.data_fingerprint,
        resamples=resamples,
        seed=seed,
        galleries=galleries,
        reliability=reliable,
        modes=modes,
    )


def _gallery(
    data: EmbeddedDataset, gallery: Gallery, progress: Progress, worst: int, resamples: int, seed: int
) -> GalleryQuality:
    images = [image for image in data.images if gallery in ("all", image.split)]
    place = {image.row: number for number, image in enumerate(images)}
    captions = [caption for caption in data.captions if caption.image_row in place]
    pool = Pool(
        images=np.asarray(data.image_vectors[[image.row for image in images]]),
        captions=np.asarray(data.caption_vectors[[caption.row for caption in captions]]),
        image_of=np.array([place[caption.image_row] for caption in captions], np.int64),
    )

    def direction(way: Way, ranks: Ranks) -> Direction:
        with progress.stage("bootstrap", None):
            missed = tuple(misses(ranks, worst, way == "text_to_image"))
            return measured(pool, way, ranks, resamples=resamples, seed=seed, worst=missed)

    def ranked(way: Way) -> Ranks:
        with progress.stage(f"ranking {gallery}, {title(way)}", pool.queries(way)) as advance:
            return pool.ranks(way, advance)

    def misses(ranks: Ranks, most: int, by_text: bool) -> list[Miss]:
        order = np.argsort(-ranks.values, kind="stable")[:most]
        return [miss(ranks, int(query), by_text) for query in order if ranks.values[query] > 1]

    def miss(ranks: Ranks, query: int, by_text: bool) -> Miss:
        owner = int(ranks.images[query])
        if by_text:
            scores = pool.images @ pool.captions[query]
            own = float(scores[owner])
        else:
            scores = pool.captions @ pool.images[owner]
            own = float(scores[pool.image_of == owner].max())
        found = []
        for row in np.argsort(-scores, kind="stable")[:RESULTS_PER_MISS].tolist():
            image = images[row if by_text else int(pool.image_of[row])]
            text = None if by_text else captions[row].text
            found.append(Result(image_row=image.row, image_path=image.image_path, caption=text, score=scores[row]))
        return Miss(
            image_row=images[owner].row,
            image_path=images[owner].image_path,
            caption=captions[query].text if by_text else None,
            rank=int(ranks.values[query]),
            score=own,
            found=tuple(found),
        )

    by_text, by_image = ranked("text_to_image"), ranked("image_to_text")
    languages, left_out = by_language(
        pool,
        languages_of(captions, [data.images[caption.image_row] for caption in captions]),
        by_text,
        progress,
        name=gallery,
        resamples=resamples,
        seed=seed,
    )
    return GalleryQuality(
        gallery=gallery,
        images=len(images),
        captions=len(captions),
        repeated_images=sum(n for n in Counter(image.content_hash for image in images).values() if n > 1),
        repeated_captions=_repeated(captions),
        text_to_image=direction("text_to_image", by_text),
        image_to_text=direction("image_to_text", by_image),
        languages=languages,
        languages_left_out=left_out,
    )


def _repeated(captions: Sequence[CaptionRecord]) -> int:
    owners: dict[str, set[int]] = {}
    for caption in captions:
        owners.setdefault(caption.text, set()).add(caption.image_row)
    return sum(len(owners[caption.text]) > 1 for caption in captions)
