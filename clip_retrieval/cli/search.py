"""``bento-clip search``: search an artifact or a running service with any mix of texts and images."""

import json
import os
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from clip_retrieval.cli import console, where_option
from clip_retrieval.cli.local_retriever import load_retriever
from clip_retrieval.cli.options import LATEST, AsJson, Key, require_no_key
from clip_retrieval.cli.where_option import WhereOption
from clip_retrieval.client import Client
from clip_retrieval.contract.answers import CaptionResult, ImageResult
from clip_retrieval.contract.base import DEFAULT_K, MAX_K
from clip_retrieval.contract.queries import MAX_OFFSET, Part, image, image_id, text
from clip_retrieval.datasets.base import IMAGE_SUFFIXES
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.images import kinds
from clip_retrieval.records import Modality, Mode, Way, way_of
from clip_retrieval.search.results import results as results_of

MINUS_WEIGHT = -0.5
"""The weight of a subtracted part. As in Rocchio's rule, unwanted parts weigh less than wanted parts."""

FILE_SUFFIXES = IMAGE_SUFFIXES | {".svg", ".pdf"} | kinds.BY_SUFFIX.keys()
"""What no text ends with: suffixes of images, also of those that are not read."""


class ModeOption(StrEnum):
    VECTOR = "vector"
    WORDS = "words"
    BOTH = "both"


def search(
    context: typer.Context,
    queries: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUERY...", help="Texts and paths of images, added to one query."),
    ] = None,
    source: Annotated[str, typer.Option("--in", help="An artifact's tag or folder, or the URL of a service.")] = LATEST,
    k: Annotated[int, typer.Option("-k", "--count", min=1, max=MAX_K, help="The number of results.")] = DEFAULT_K,
    captions: Annotated[
        bool,
        typer.Option("--captions", help="Find captions instead of images; needs an image, or --mode words or both."),
    ] = False,
    minus: Annotated[
        list[str] | None, typer.Option("--minus", help=f"A text or image to subtract, with weight {MINUS_WEIGHT}.")
    ] = None,
    like: Annotated[
        list[str] | None, typer.Option("--like", metavar="ID", help="An image of the collection, by its image_id.")
    ] = None,
    where: WhereOption = None,
    offset: Annotated[int, typer.Option(min=0, max=MAX_OFFSET, help="The number of results to skip.")] = 0,
    min_score: Annotated[float | None, typer.Option(min=-1, max=1, help="The least score of a result.")] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="The least confidence of a result, the share of right answers at its score: by default the bound that "
            "the collection chose, if it has one; 0 for all results.",
        ),
    ] = None,
    mode: Annotated[
        ModeOption,
        typer.Option(
            help="What finds: vector, what images show; words, the literal words of captions, file names and text"
            " columns; both, either of them, in one order."
        ),
    ] = ModeOption.VECTOR,
    texts: Annotated[
        list[str] | None, typer.Option("--text", help="A text to add, also one that looks like the name of a file.")
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(metavar="CODE", help="The language of the texts, for models that mark it (NLLB's): deu_Latn."),
    ] = None,
    dedupe: Annotated[bool, typer.Option("--dedupe", help="Show only the best of near-duplicates.")] = False,
    paths: Annotated[
        bool, typer.Option("--paths", help="Print the path of each image alone, one a line, for other programs.")
    ] = False,
    root: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With --paths: the folder of the images; prints those that are there."),
    ] = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Search an artifact or a running service with texts, images, or any mix of them.

    Examples:

    ```
    bento-clip search "a red panda"
    bento-clip search windmill.jpg --captions -k 3
    bento-clip search "a dog" park.jpg --minus snow --dedupe
    bento-clip search --like owl-1 --where 'year >= 2020 and not place = "New York"'
    bento-clip search "owl 0042" --mode both
    bento-clip search "an owl" --in http://localhost:3000 --json
    bento-clip search "an owl" --paths --root ~/photos | xargs -d "\\n" xdg-open
    ```
    """
    if root is not None and not paths:
        raise typer.BadParameter("it says where the images of --paths are; give --paths too", param_hint="--root")
    if paths and as_json:
        raise typer.BadParameter("JSON has the paths; give one of the two", param_hint="--paths")
    parts = [
        *(_part(query, language=language) for query in queries or []),
        *(text(one, language=language) for one in texts or []),
        *(image_id(identity) for identity in like or []),
        *(_part(query, MINUS_WEIGHT, language) for query in minus or []),
    ]
    _check_parts(parts, captions=captions, language=language, mode=mode.value)
    conditions = where_option.conditions(where or [])
    target: Modality = "captions" if captions else "images"
    results: list[ImageResult] | list[CaptionResult]
    are_texts = {part.text is not None for part in parts}
    way = way_of(target, has_texts=True in are_texts, has_images=False in are_texts)
    if mode is ModeOption.WORDS:
        way = None  # what has the words is found whatever its confidence
    if source.startswith(("http://", "https://")):
        with Client(source, key=key) as client:
            least = _least(min_confidence, way, lambda: client.info().bound(way))
            answer = client.search(
                parts,
                target=target,
                k=k,
                offset=offset,
                min_score=min_score,
                min_confidence=least,
                dedupe=dedupe,
                where=conditions,
                mode=mode.value,
            )
        results, next_offset, below = answer.results, answer.next_offset, answer.below_confidence
    else:
        require_no_key(context)
        retriever = load_retriever(source, "searching an artifact, and not a service by --in URL")
        from clip_retrieval.artifacts.confidence import confident_ways

        curves = retriever.collection.curves
        least = _least(min_confidence, way, lambda: curves.bound if curves and way in confident_ways(curves) else None)
        found = retriever.search(
            parts,
            target=target,
            k=k,
            offset=offset,
            min_score=min_score,
            min_confidence=least,
            dedupe=dedupe,
            where=conditions,
            mode=mode.value,
        )
        results, next_offset, below = results_of(found), found.next_offset, found.below
    if below:
        nothing = "" if results else "nothing here is near enough: "
        console.note(f"{nothing}{below} results have a confidence below {least}; --min-confidence 0 shows them")
    elif not results:
        console.note(_nothing(mode.value, where, min_score, offset))
    shows_finder = mode is ModeOption.BOTH
    if as_json:
        typer.echo(json.dumps([result.model_dump() for result in results], ensure_ascii=False))
        return
    if paths:
        _print_paths(list(dict.fromkeys(result.image_path for result in results)), root)
    elif captions:
        console.captions_table([r for r in results if isinstance(r, CaptionResult)], found_by=shows_finder)
    else:
        console.images_table([r for r in results if isinstance(r, ImageResult)], found_by=shows_finder)
    console.next_page(next_offset, offset, k, len(results))


def _nothing(mode: Mode, where: object, min_score: float | None, offset: int) -> str:
    """Why a search that may have had results found none."""
    reasons = [
        *(["no image has the words"] if mode == "words" else []),
        *(["nothing passes --where"] if where else []),
        *(["nothing reaches --min-score"] if min_score is not None else []),
        *(["--offset is behind the last"] if offset else []),
    ]
    return f"nothing found: {' or '.join(reasons) or 'the collection has no images'}"


def _check_parts(parts: Sequence[Part], *, captions: bool, language: str | None, mode: Mode) -> None:
    """Raise what says so where these parts are no query."""
    if not parts:
        raise typer.BadParameter(
            "give a text, an image or --like; bento-clip browse shows images without a query", param_hint="QUERY"
        )
    if captions and mode == "vector" and all(part.text is not None for part in parts):
        raise InvalidQuery(
            f"--captions needs an image in the query, or --mode words or both; there is no file {parts[0].text}"
        )
    if language is not None and all(part.text is None for part in parts):
        raise typer.BadParameter("the query has no text; leave it out", param_hint="--language")


def _least(given: float | None, way: Way | None, bound: Callable[[], float | None]) -> float | None:
    """The least confidence: what was given, else the collection's own ``bound`` for a search that goes one way."""
    return given if given is not None or way is None else bound()


def _print_paths(paths: list[str], root: Path | None) -> None:
    """One path a line. Below ``root`` only files that there are: what is missing is said on standard error."""
    for path in paths:
        if root is None:
            console.line(path)
        elif (root / path).is_file():
            console.line(str(root / path))
        else:
            console.note(f"there is no file {root / path}")


def _part(query: str, weight: float = 1.0, language: str | None = None) -> Part:
    """An image if a file has that name, otherwise a text. Raises InvalidQuery for what looks like a missing file."""
    # pathlib raises an error for a text that is too long for a file name
    is_file = os.path.isfile(query)  # noqa: PTH113
    if is_file:
        return image(Path(query), weight)
    is_path = os.sep in query and not any(map(str.isspace, query))
    if is_path or Path(query).suffix.lower() in FILE_SUFFIXES:
        raise InvalidQuery(f"{_missing(Path(query))}; a text that looks like a file goes with --text")
    return text(query, weight, language)


def _missing(path: Path) -> str:
    """What is wrong with a path that is no file, and what stands there instead."""
    try:
        if path.is_dir():
            return f"{path} is a folder; give the path of an image in it"
        names = {entry.name.lower(): entry for entry in path.parent.iterdir()}
    except OSError:
        return f"there is no file {path}, and its folder cannot be read"
    near = [str(names[name]) for name in get_close_matches(path.name.lower(), names, cutoff=0.75)]
    return f"there is no file {path}" + (f"; did you mean {' or '.join(near)}?" if near else "")
