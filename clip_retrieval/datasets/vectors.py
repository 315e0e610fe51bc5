"""Whether a place has vectors that another program made. ``vector_files.py`` reads them."""

from pathlib import PurePosixPath

from clip_retrieval.datasets.place import Fit, Miss, Place, SourceOptions
from clip_retrieval.errors import MissingExtra, SourceError


def fits(place: Place, options: SourceOptions) -> Fit | Miss | None:
    """The vectors of a folder, if ``options.take_vectors`` asks for them; else what could be asked for.

    Raises SourceError if they are asked for and are not there, MissingExtra if pyarrow is not installed.
    """
    first = next((name for name in place.files if _is_vectors(name)), None)
    if not options.take_vectors:
        seen = "vectors that another program made; --take-vectors takes them, with --model as the model that made them"
        return None if first is None or place.only is not None else Miss(first, seen)
    if first is None or place.only is not None:
        raise SourceError(
            f"{place.shown} has no vectors to take: --take-vectors needs a folder with img_emb_0.npy and"
            " metadata_0.parquet, as clip-retrieval writes them"
        )
    try:
        from clip_retrieval.datasets.vector_files import VectorFiles, shards_of
    except ModuleNotFoundError as error:
        raise MissingExtra(f"reading the metadata of {first}", "shards") from error
    shards = shards_of(place)
    count = len(shards)
    why = "a file of vectors, taken as it is" if count == 1 else f"{count} files of vectors, taken as they are"
    return Fit(VectorFiles(place, options, shards), why)


def _is_vectors(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix == ".npy" and path.name.startswith("img_emb")
