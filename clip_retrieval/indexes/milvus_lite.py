"""Milvus Lite: one process of a host opens the folder, and every other one asks that process.

Milvus Lite answers over gRPC at a port of the loopback interface, also inside its own process. The process that has the
folder open leaves the port in a file there. When it ends, the next one that asks opens the folder.
"""

from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from milvus_lite.server_manager import server_manager_instance

PORT_FILE = "bento-clip-port"
"""The file in the folder of a Milvus Lite that has the port; it stays when the process is killed."""


def lite_address(folder: Path) -> str:
    """Where the Milvus Lite in ``folder`` answers; it is opened here if no other process has it open.

    Raises ValueError, with a sentence, where neither is so.
    """
    if not folder.parent.is_dir():
        raise ValueError(f"there is no folder {folder.parent}")
    place = folder / PORT_FILE
    address: str | None = server_manager_instance.start_and_get_uri(str(folder))
    if address is not None:
        with suppress(OSError):  # the others alone miss it
            place.write_text(str(urlsplit(address).port), encoding="ascii")
        return address
    try:
        return f"http://127.0.0.1:{int(place.read_text(encoding='ascii'))}"
    except (OSError, ValueError):
        raise ValueError("another process has it open and does not say where, or it is no Milvus Lite") from None
