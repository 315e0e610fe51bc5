"""Collections of Milvus that appear complete.

A collection is filled under a name of its own. It gets the alias under which it is searched when all of its rows are
there, so half a collection is never searched.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from pymilvus import DataType, MilvusClient, MilvusException

from clip_retrieval.indexes.milvus_engine import METRIC, ROW, VECTOR, WRITE_S, MilvusEngine
from clip_retrieval.indexes.milvus_index import given_field

LOAD_S = 600.0
"""Seconds that Milvus may take to build the index of a whole collection and to load it."""
MAX_TEXT_BYTES = 65_535
"""Longest text of a Milvus field. A longer one is cut there; the artifact has the whole text."""
TYPES = {"text": DataType.VARCHAR, "number": DataType.DOUBLE, "boolean": DataType.BOOL}
NOTHING: Mapping[str, str | float | bool] = {"text": "", "number": 0.0, "boolean": False}
"""What stands in a field of which the row has no value, by its type."""


class MilvusWriter(MilvusEngine):
    """A Milvus that is written to. Used from one thread."""

    def count(self, name: str) -> int | None:
        """How many rows the collection has, None without one of that name. Raises IndexAway."""

        def ask(client: MilvusClient) -> int | None:
            if not client.has_collection(name, timeout=WRITE_S):
                return None
            client.load_collection(name, timeout=LOAD_S)
            found = client.query(
                name, filter="", output_fields=["count(*)"], consistency_level="Strong", timeout=WRITE_S
            )
            return int(found[0]["count(*)"])

        return self.asked(ask)

    def fill(
        self,
        alias: str,
        dim: int,
        fields: Mapping[str, tuple[str, str]],
        batches: Iterable[Sequence[Mapping[str, Any]]],
        index: tuple[str, Mapping[str, int]],
        advance: Callable[[int], None] = lambda _: None,
        *,
        optional: Collection[str] = (),
    ) -> None:
        """Write rows into a new collection, which gets the name ``alias`` when all of them are there.

        ``fields`` maps the name of each field, beside row and vector, to its type (a key of ``TYPES``) and to words for
        people. A row may have None in a field of ``optional``; beside each of them stands the field ``given_field``,
        which says whether there is a value. ``index`` is its kind and the parameters of its build. What had the alias
        is dropped afterwards, and so is what a build that was killed has left. ``advance`` gets the number of rows just
        written. Raises IndexAway.
        """
        self.asked(lambda client: self._fill(client, alias, dim, fields, batches, index, advance, optional))

    def _fill(
        self,
        client: MilvusClient,
        alias: str,
        dim: int,
        fields: Mapping[str, tuple[str, str]],
        batches: Iterable[Sequence[Mapping[str, Any]]],
        index: tuple[str, Mapping[str, int]],
        advance: Callable[[int], None],
        optional: Collection[str],
    ) -> None:
        before = _aliased(client, alias)
        name = f"{alias}_b" if before == f"{alias}_a" else f"{alias}_a"
        if client.has_collection(name, timeout=WRITE_S):  # a build that was killed has left it
            client.drop_collection(name, timeout=WRITE_S)
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(ROW, DataType.INT64, is_primary=True)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dim)
        for field, (kind, words) in fields.items():
            length = {"max_length": MAX_TEXT_BYTES} if kind == "text" else {}
            schema.add_field(field, TYPES[kind], description=words[:200], **length)
            if field in optional:
                schema.add_field(given_field(field), DataType.BOOL, description=f"whether there is a {field}")
        client.create_collection(name, schema=schema, consistency_level="Bounded", timeout=WRITE_S)
        for batch in batches:
            if batch:
                client.insert(name, [_filled(row, fields, optional) for row in batch], timeout=WRITE_S)
            advance(len(batch))
        client.flush(name, timeout=LOAD_S)
        self._index(client, name, index)
        if before is None:
            client.create_alias(name, alias, timeout=WRITE_S)
        else:
            client.alter_alias(name, alias, timeout=WRITE_S)
            client.drop_collection(before, timeout=WRITE_S)
        self.loaded.discard(alias)

    def index_again(self, alias: str, index: tuple[str, Mapping[str, int]]) -> None:
        """Give the collection another kind of index. Raises IndexAway."""

        def ask(client: MilvusClient) -> None:
            name = _aliased(client, alias) or alias
            client.release_collection(name, timeout=WRITE_S)
            client.drop_index(name, VECTOR, timeout=WRITE_S)
            self._index(client, name, index)

        self.asked(ask)

    def drop(self, alias: str) -> None:
        """Remove the collection that has this alias, and the alias. Raises IndexAway."""

        def ask(client: MilvusClient) -> None:
            if (name := _aliased(client, alias)) is not None:
                client.drop_alias(alias, timeout=WRITE_S)
                client.drop_collection(name, timeout=WRITE_S)
            self.loaded.discard(alias)

        self.asked(ask)

    def drop_unfinished(self, alias: str) -> bool:
        """Remove what was filled for this alias and did not get it; whether another collection has it.

        Raises IndexAway.
        """

        def ask(client: MilvusClient) -> bool:
            held = _aliased(client, alias)
            for name in (f"{alias}_a", f"{alias}_b"):
                if name != held and client.has_collection(name, timeout=WRITE_S):
                    client.drop_collection(name, timeout=WRITE_S)
            return held is not None

        return self.asked(ask)

    @staticmethod
    def _index(client: MilvusClient, name: str, index: tuple[str, Mapping[str, int]]) -> None:
        kind, parameters = index
        described = client.prepare_index_params()
        described.add_index(VECTOR, index_type=kind, metric_type=METRIC, params=dict(parameters))
        client.create_index(name, described, timeout=LOAD_S)
        client.load_collection(name, timeout=LOAD_S)


def _filled(row: Mapping[str, Any], fields: Mapping[str, tuple[str, str]], optional: Collection[str]) -> dict[str, Any]:
    """``row`` without None, and with what says where it had one."""
    full = dict(row)
    for field in optional:
        full[given_field(field)] = row[field] is not None
        if row[field] is None:
            full[field] = NOTHING[fields[field][0]]
    return full


def field_text(text: str) -> str:
    """``text`` as a Milvus field takes it: not longer than ``MAX_TEXT_BYTES``."""
    encoded = text.encode("utf-8", "replace")
    return text if len(encoded) <= MAX_TEXT_BYTES else encoded[:MAX_TEXT_BYTES].decode("utf-8", "ignore")


def _aliased(client: MilvusClient, alias: str) -> str | None:
    """The name of the collection that has this alias."""
    try:
        return str(client.describe_alias(alias, timeout=WRITE_S)["collection_name"])
    except MilvusException:
        if client.has_collection(alias, timeout=WRITE_S):
            raise
        return None
