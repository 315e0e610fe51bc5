"""The supervisor of a service, as ``bentoml serve`` makes it, without the imports of BentoML's other commands.

    python -m clip_retrieval.serving.launch --folder FOLDER --host 127.0.0.1 --port 3000

BentoML's command imports its client of BentoCloud, its builder and what the cloud's commands need before it knows which
command it is. The service is the same, and so are its workers.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from clip_retrieval.serving.without_cloud import load_service_parts


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until a signal ends it. Raises SystemExit, with status 1 for a service that has failed."""
    parser = argparse.ArgumentParser(prog="python -m clip_retrieval.serving.launch")
    parser.add_argument("--folder", type=Path, required=True, help="where service.py is")
    parser.add_argument("--host", required=True, help="the address to listen on")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ssl-certfile")
    parser.add_argument("--ssl-keyfile")
    parser.add_argument("--ssl-ca-certs")
    parser.add_argument("--ssl-cert-reqs", type=int)
    given = vars(parser.parse_args(arguments))
    load_service_parts()
    from clip_retrieval.serving.bento_dispatch import serve
    from clip_retrieval.serving.process import OUTLINE

    serve(OUTLINE, given.pop("folder"), **given)


if __name__ == "__main__":
    main()
