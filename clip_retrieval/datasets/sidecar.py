"""A folder in which each image has a file of its own for its captions: text, one caption per line, or JSON.

``sidecar_files.py`` says which file belongs to which image. In JSON the keys that name captions have them, as columns
of a table do; the other keys are fields. A text that is a name of an image is no caption (Google Takeout's ``title``).
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import PurePosixPath

from clip_retrieval.datasets.base import IMAGE_SUFFIXES, Source, is_text
from clip_retrieval.datasets.code_page import Encoding
from clip_retrieval.datasets.column_names import Roles, folded
from clip_retrieval.datasets.image_files import images_below
from clip_retrieval.datasets.img2dataset_status import bookkeeping
from clip_retrieval.datasets.json_values import not_repeated, reason_of, values_in
from clip_retrieval.datasets.place import Fit, Place, SourceOptions
from clip_retrieval.datasets.rows import roles_by_row
from clip_retrieval.datasets.samples import Sample, images_of
from clip_retrieval.datasets.sidecar_files import Sidecars
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.datasets.taking import TakenFile, Taking
from clip_retrieval.datasets.text_file import code_page_over, encoding_of, lines_of
from clip_retrieval.datasets.unused import count_unused
from clip_retrieval.errors import ImageRejected, SourceError
from clip_retrieval.records import CaptionedImage, Reject

_JSON_BYTES = 2**24
_LOOKED_AT = 1000
"""JSON files that are read to see whether any has a caption."""
_LONGEST_FIELD = 10_000
"""Characters of a field. Tools write whole pages beside an image: what formats a video has, or the image in base64."""
_UNREADABLE = (ImageRejected, SourceError, ValueError, RecursionError)
"""What a JSON file raises that cannot be read."""


class SidecarFolder(Source):
    """Every image below a folder with what the files of its name say, if there are any.

    The relative path is the image_id. Text files without an image (a README) are counted as not used.
    """

    name = "sidecar"

    def __init__(self, place: Place, options: SourceOptions, *, has_captions: bool = True) -> None:
        self._place = place
        self._options = options
        self._sidecars = Sidecars(place)
        self.has_captions = has_captions
        self.takes_columns = options.image_column is None and bool(self._sidecars.json_files())

    def read(self) -> Iterator[CaptionedImage | Reject]:
        taking = self.taking
        taking.columns, taking.fields, taking.notes = {}, {}, []
        used: set[str] = set()
        files = _Files(self._options, self._texts)
        for found in images_below(self._place):
            used.add(found.where if isinstance(found, Reject) else found.name)
            if isinstance(found, Reject):
                yield found
                continue
            texts, jsons = self._sidecars.texts_of(found.name), self._sidecars.json_of(found.name)
            used.update(file.name for file in (*texts, *jsons))
            if (folder := str(PurePosixPath(found.name).with_suffix(".txt"))) in self._place.folders:
                yield Reject(folder, "a folder, not a text file with captions")
            lines: list[str] = []
            for file in texts:
                yield from files.add_lines(file, lines)
            values: dict[str, object] = {}
            for file in jsons:
                yield from files.add_values(file, values)
            roles = files.roles_in(values)
            image = found.named(unicodedata.normalize("NFC", found.name))
            where = jsons[0].name if jsons else image.name
            captions = tuple(not_repeated(lines, values, roles))
            yield from images_of(Sample(where, image, values, roles, None, captions), taking)
        files.tell(taking)
        taking.unused = count_unused(self._place, used, "images")

    def _texts(self) -> Iterator[StoredFile]:
        return (file for image in _images(self._place) for file in self._sidecars.texts_of(image))


@dataclass
class _Files:
    """Reads the files beside images, and keeps how."""

    options: SourceOptions
    texts: Callable[[], Iterable[StoredFile]]
    """All text files, which have one code page if they are not Unicode."""
    read: Counter[tuple[str, Encoding]] = field(default_factory=Counter)
    """How many files were read, by kind and encoding."""
    captions: dict[str, str] = field(default_factory=dict)
    """What had captions, as a person may name it, and for people."""
    too_long: Counter[str] = field(default_factory=Counter)
    """How many values are too long for a field, by name."""

    def add_lines(self, file: StoredFile, lines: list[str]) -> Iterator[Reject]:
        """Add the lines of a text file that are not empty; a Reject for what is not text."""
        suffix = PurePosixPath(file.name).suffix.lower().removeprefix(".")
        if self.options.caption_columns and suffix not in map(folded, self.options.caption_columns):
            return
        try:
            encoding = encoding_of(file, self.options.encoding, lambda _: self._code_page)
            found = list(lines_of(file, encoding.name))
        except SourceError as error:
            yield Reject(file.name, str(error.__cause__ or error))
            return
        self.read["text files", encoding] += 1
        self.captions[suffix] = "each line of a text file"
        for number, line in enumerate(found, 1):
            if not is_text(line):
                yield Reject(f"{file.name} line {number}", "not UTF-8 text")
            elif text := line.strip():
                lines.append(text)

    @cached_property
    def _code_page(self) -> Encoding:
        return code_page_over(self.texts())

    def add_values(self, file: StoredFile, values: dict[str, object]) -> Iterator[Reject]:
        """Add the values of a JSON file that are not known yet; a Reject if it cannot be read."""
        try:
            encoding, found = _values_of(file, self.options)
        except _UNREADABLE as error:
            yield Reject(file.name, reason_of(error))
            return
        self.read["JSON files", encoding] += 1
        values.update({name: value for name, value in found.items() if value != "" and name not in values})

    def roles_in(self, values: dict[str, object]) -> Roles:
        """What the keys are. Removes what is no field: img2dataset's status, and what is too long, which is counted."""
        roles = _roles(values, self.options)
        self.captions.update({folded(name): name for name in roles.captions})
        for name in bookkeeping(values) - roles.used:
            values.pop(name, None)
        for name in [name for name, value in values.items() if name not in roles.used and _is_too_long(value)]:
            del values[name]
            self.too_long[name] += 1
        return roles

    def tell(self, taking: Taking) -> None:
        """Put into ``taking`` what was read. Raises SourceError if a person named a column that no file had."""
        if missing := [name for name in self.options.caption_columns if folded(name) not in self.captions]:
            found = ", ".join(map(repr, taking.fields)) or "none"
            raise SourceError(
                f"no file beside an image has {', '.join(map(repr, missing))}: name a key of the JSON, or the suffix of"
                f" text files (keys found: {found})"
            )
        taking.files = [
            TakenFile(f"{count} {kind}", encoding.name, guessed=not encoding.sure)
            for (kind, encoding), count in self.read.items()
        ]
        taking.columns = {"caption": list(dict.fromkeys(self.captions.values()))}
        if not self.captions:
            taking.notes.append("no key of the JSON is called as captions are: use --caption-column if one has them")
        if self.too_long:
            names = ", ".join(f"{name} ({count})" for name, count in self.too_long.most_common())
            taking.notes.append(f"longer than {_LONGEST_FIELD:,} characters and left out: {names}")


def fits(place: Place, options: SourceOptions) -> Fit | None:
    """A folder in which any image has a text file, or JSON with a caption."""
    if place.only is not None:
        return None
    sidecars = Sidecars(place)
    with_text = ((file, image) for image in _images(place) for file in sidecars.texts_of(image))
    with_json = ((file, image) for image in _images(place) for file in sidecars.json_of(image))
    first = next(with_text, None)
    if first is None:
        first = next((pair for pair in islice(with_json, _LOOKED_AT) if _has_caption(pair[0], options)), None)
    return None if first is None else _fit(place, options, *first, has_captions=True)


def fits_fields(place: Place, options: SourceOptions) -> Fit | None:
    """A folder in which any image has JSON with fields and no caption."""
    if place.only is not None:
        return None
    sidecars = Sidecars(place)
    first = next(((file, image) for image in _images(place) for file in sidecars.json_of(image)), None)
    return None if first is None else _fit(place, options, *first, has_captions=False)


def _fit(place: Place, options: SourceOptions, file: StoredFile, image: str, *, has_captions: bool) -> Fit:
    source = SidecarFolder(place, options, has_captions=has_captions)
    source.taking.why = f"{file.name} stands beside {image}"
    return Fit(source, source.taking.why)


def _images(place: Place) -> Iterator[str]:
    return (found.name for found in images_below(place) if not isinstance(found, Reject))


def _has_caption(file: StoredFile, options: SourceOptions) -> bool:
    try:
        _, values = _values_of(file, options)
    except _UNREADABLE:
        return False
    return bool(_roles(values, options).captions)


def _values_of(file: StoredFile, options: SourceOptions) -> tuple[Encoding, Mapping[str, object]]:
    """The encoding of a JSON file and its values. Raises one of ``_UNREADABLE``."""
    data = file.read(_JSON_BYTES)
    if len(data) > _JSON_BYTES:
        raise ValueError(f"over {_JSON_BYTES >> 20} MiB of JSON")
    encoding = Encoding(json.detect_encoding(data))
    try:
        text = data.decode(encoding.name)
    except UnicodeDecodeError:
        encoding = encoding_of(file, options.encoding)
        text = data.decode(encoding.name)
    return encoding, values_in(text)


def _roles(values: Mapping[str, object], options: SourceOptions) -> Roles:
    """What each key is: captions, the split, and fields. The image has its name, whatever the JSON calls it."""
    texts = {name: value for name, value in values.items() if not _is_name(value) and value not in ("", [])}
    roles = roles_by_row(replace(options, image_column=None))(texts)
    return Roles(None, roles.captions, {role: name for role, name in roles.others.items() if role == "split"})


def _is_name(value: object) -> bool:
    return isinstance(value, str) and PurePosixPath(value.strip()).suffix.lower() in IMAGE_SUFFIXES


def _is_too_long(value: object) -> bool:
    if isinstance(value, list | dict):
        return len(json.dumps(value, ensure_ascii=False)) > _LONGEST_FIELD
    return isinstance(value, str) and len(value) > _LONGEST_FIELD
