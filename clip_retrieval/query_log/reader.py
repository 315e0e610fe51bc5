"""What a log holds, and its end."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clip_retrieval.errors import QueryLogError
from clip_retrieval.query_log.entry import LoggedClick, LoggedSearch, entry_of
from clip_retrieval.query_log.folder import collection_of, files_of
from clip_retrieval.storage import storage


@dataclass
class CollectionLog:
    """What was asked of one collection, in the order in which each process has written it."""

    collection: str
    searches: list[LoggedSearch] = field(default_factory=list)
    clicks: list[LoggedClick] = field(default_factory=list)
    skipped: int = 0
    """Lines that are not whole, as a kill leaves them."""
    files: list[Path] = field(default_factory=list)
    size: int = 0
    """Bytes of the files."""

    def clicks_by_search(self) -> Mapping[str, list[LoggedClick]]:
        """The clicks on the results of each search."""
        found: dict[str, list[LoggedClick]] = defaultdict(list)
        for click in self.clicks:
            found[click.search_id].append(click)
        return found


def read_logs(log: Path) -> list[CollectionLog]:
    """What is in the folder of a log, or in that of one collection in it, by the names of the collections.

    Files that a service removes meanwhile are passed over. Raises QueryLogError where there is no log, StorageFailed
    where it may not be read.
    """
    logs: dict[str, CollectionLog] = {}
    for path in _files(log):
        try:
            with storage(log):
                lines = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            continue
        collection = collection_of(lines[0])
        if collection is None:
            continue
        found = logs.setdefault(collection, CollectionLog(collection))
        found.files.append(path)
        found.size += sum(map(len, lines)) + len(lines) - 1
        for line in filter(None, lines[1:]):
            try:
                entry = entry_of(line)
            except ValueError:
                found.skipped += 1
                continue
            if isinstance(entry, LoggedSearch):
                found.searches.append(entry)
            else:
                found.clicks.append(entry)
    if not logs:
        raise QueryLogError(f"{log} holds no query log; a service writes one with BENTO_CLIP_QUERY_LOG={log}")
    return [logs[name] for name in sorted(logs)]


def log_of(log: Path, collection: str) -> CollectionLog:
    """What was asked of this collection. Raises as ``read_logs`` does, and QueryLogError if it was asked nothing."""
    logs = read_logs(log)
    for one in logs:
        if one.collection == collection:
            return one
    names = ", ".join(one.collection for one in logs)
    raise QueryLogError(f"{log} has no queries of the collection {collection}; it has those of {names}")


def clear(log: Path, collection: str | None = None) -> tuple[int, int]:
    """Remove the files of one collection, or of all; returns how many there were, and their bytes.

    A service that is running begins new ones. Raises as ``log_of`` does.
    """
    logs = read_logs(log) if collection is None else [log_of(log, collection)]
    files = [path for one in logs for path in one.files]
    with storage(log):
        for path in files:
            path.unlink(missing_ok=True)
    return len(files), sum(one.size for one in logs)


def _files(log: Path) -> list[Path]:
    with storage(log):
        if not log.is_dir():
            return []
        folders = sorted(path for path in log.iterdir() if path.is_dir())
        return [path for folder in (log, *folders) for path in files_of(folder)]
