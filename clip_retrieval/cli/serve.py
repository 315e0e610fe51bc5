"""``bento-clip serve``: run the search service for one artifact."""

import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from clip_retrieval.artifacts import modelstore
from clip_retrieval.cli import console, given
from clip_retrieval.cli.artifact_options import Tag
from clip_retrieval.cli.bentoml_serve import serve_artifact
from clip_retrieval.cli.start_table import StartProfile
from clip_retrieval.cli.tls import Tls
from clip_retrieval.errors import ClipRetrievalError, MissingExtra
from clip_retrieval.indexes.milvus_place import is_file
from clip_retrieval.urls import is_url

CHANGES_SETTING = "BENTO_CLIP_CHANGES"
ORIGINALS_SETTING = "BENTO_CLIP_ORIGINALS"
KEYS_SETTING = "BENTO_CLIP_KEYS"
INDEX_URI_SETTING = "BENTO_CLIP_INDEX_URI"
QUERY_LOG_SETTING = "BENTO_CLIP_QUERY_LOG"
INSECURE_SETTING = "BENTO_CLIP_INSECURE"
LOOKED_AT = 50
SHORT = 80
"""Characters of a caption that fits a line of a terminal."""


def serve(
    source: Tag = modelstore.LATEST,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The TCP port.")] = 3000,
    host: Annotated[
        str, typer.Option(help="The address or name to listen on; 0.0.0.0 listens on every interface, :: also on IPv6.")
    ] = "127.0.0.1",
    changes: Annotated[
        Path | None,
        typer.Option(
            parser=given.path,
            help="A folder for changes of the collection while it is served; without it the collection is frozen.",
            envvar=CHANGES_SETTING,
        ),
    ] = None,
    originals: Annotated[
        Path | None,
        typer.Option(
            parser=given.path,
            metavar="FOLDER",
            help="The folder that the artifact was built from: its files are given out as the originals of the images.",
            envvar=ORIGINALS_SETTING,
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            parser=given.path,
            metavar="FILE",
            help="The file of API keys, which say who may do what.",
            envvar=KEYS_SETTING,
        ),
    ] = None,
    query_log: Annotated[
        Path | None,
        typer.Option(
            "--query-log",
            parser=given.path,
            help="A folder where searches, and what was opened of them, are logged: what to evaluate and tune with. "
            "Without it nothing is.",
            envvar=QUERY_LOG_SETTING,
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Let everyone who reaches the port do everything, changing too, without keys."),
    ] = False,
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--ssl-certfile", parser=given.path, help="A certificate in PEM, with those that signed it: serve HTTPS."
        ),
    ] = None,
    private_key: Annotated[
        Path | None,
        typer.Option(
            "--ssl-keyfile", parser=given.path, help="Its private key; by default it is in the file of the certificate."
        ),
    ] = None,
    client_authority: Annotated[
        Path | None,
        typer.Option(
            "--ssl-ca-certs",
            parser=given.path,
            help="Certificates of those that sign clients: one without is refused.",
        ),
    ] = None,
    profile_start: Annotated[
        bool, typer.Option("--profile-start", help="Say what the start took, stage by stage, with a first query.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the profile of the start as one line of JSON instead of a table.")
    ] = False,
) -> NoReturn:
    """Serve an artifact with BentoML. When the service is ready, the command prints a request to try.

    Examples:

    ```
    bento-clip serve
    bento-clip serve clip-retrieval:latest --port 8080
    bento-clip serve s3://bucket/photos/latest
    bento-clip serve --changes ~/photos-changes --insecure
    bento-clip serve --changes ~/photos-changes --keys keys.jsonl --host 0.0.0.0
    bento-clip serve --host 0.0.0.0 --ssl-certfile fullchain.pem --ssl-keyfile privkey.pem
    bento-clip serve --query-log queries
    bento-clip serve --profile-start
    ```

    Without keys, searching is open on this machine and changing is not.
    """
    if missing := _missing():
        raise MissingExtra(f"bento-clip serve ({missing})", "serve")
    if as_json and not profile_start:
        raise typer.BadParameter("it is the form of a profile: --profile-start", param_hint="--json")
    with ExitStack() as stack:
        profile = stack.enter_context(StartProfile(as_json=as_json)) if profile_start else None
        if is_url(source):
            from clip_retrieval.artifacts.published import import_to_serve

            source = import_to_serve(source, console.Bars(), console.note)
        tag, folder = modelstore.resolve_whole(source)
        if tag == source and Path(source).is_dir():
            tag = str(folder.resolve())  # the service has another working folder
        paths = {
            CHANGES_SETTING: changes,
            ORIGINALS_SETTING: originals,
            KEYS_SETTING: keys,
            QUERY_LOG_SETTING: query_log,
        }
        environment = _environment(paths, insecure=insecure)
        tls = _tls(certificate, private_key, client_authority)
        raise typer.Exit(serve_artifact(tag, host, port, environment, tls, profile, lambda: _example(folder)))


def _missing() -> str | None:
    """A package that the service needs and that is not installed; none of them is imported here."""
    try:
        return next((package for package in ("bentoml", "faiss") if find_spec(package) is None), None)
    except ModuleNotFoundError as error:  # a finder may say so instead
        return error.name


def _example(folder: Path) -> str | None:
    """A caption to try a search with: the first short one of the first images; None if they have none.

    None also where the files went meanwhile: the service says so itself when it needs them.
    """
    from clip_retrieval.artifacts.artifact import Artifact

    with suppress(ClipRetrievalError, OSError), Artifact.open(folder, verify=False).store() as store:
        captions = [one.text for one in store.captions(range(min(LOOKED_AT, store.row_ends()[1])))]
        return next((text for text in captions if len(text) <= SHORT and text.isprintable()), None)
    return None


def _tls(certificate: Path | None, key: Path | None, client_authority: Path | None) -> Tls | None:
    """What HTTPS is served with; None for HTTP. Raises BadParameter and ClipRetrievalError for what cannot be used."""
    if certificate is None:
        for given, option in ((key, "--ssl-keyfile"), (client_authority, "--ssl-ca-certs")):
            if given is not None:
                raise typer.BadParameter("it needs a certificate: --ssl-certfile", param_hint=option)
        return None
    tls = Tls(certificate, key, client_authority)
    tls.check()
    return tls


def _environment(given: Mapping[str, Path | None], *, insecure: bool) -> dict[str, str]:
    """That of the service, which has another working folder, with the paths that were ``given`` by their settings, or
    that the settings have: ``demo`` gives none."""
    paths = {name: path or os.environ.get(name) for name, path in given.items()}
    if is_file(index := os.environ.get(INDEX_URI_SETTING, "")):
        paths[INDEX_URI_SETTING] = index
    said = {name: str(Path(path).expanduser().absolute()) for name, path in paths.items() if path}
    return {**os.environ, **said, **({INSECURE_SETTING: "true"} if insecure else {})}
