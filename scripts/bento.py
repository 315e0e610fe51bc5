"""Makes the Bento: the service, its packages at the tested versions, and one artifact inside.

    python -m scripts.bento                                     # the newest artifact
    python -m scripts.bento --artifact clip-retrieval:66db36be071e8cf4

A staging folder gets exactly the contents of the Bento: the modules that the service and its launcher import, directly
or not, the other files that ``bentofile.yaml`` includes, the pins, and ``bentofile.yaml`` with the artifact and the
labels filled in. ``bentoml build`` packs it. The version is ``<artifact>-<hash of the staging folder>``, so that the
same inputs have the same version and the same content. The last line on standard output is the tag.
"""

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import bentoml
import yaml
from bentoml.exceptions import NotFound

from clip_retrieval import __version__
from clip_retrieval.artifacts import model_yaml, modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.models.fingerprint import folder_fingerprint
from scripts.common.paths import ROOT
from scripts.oci import pins

PACKAGE = "clip_retrieval"
STARTED = ("service.py", "serving/launch.py", "serving/work.py")
"""What a process begins with: the service, what starts it in the image, and each of its workers."""
BUCKETS = "bring pyarrow, with which the service follows what is published in S3 or Google Cloud Storage"
BASIC_FORMATS = "leave out HEIC and JPEG XL, whose packages are under the GPL"


class CannotBuild(Exception):
    """The Bento cannot be made; the message says why."""


def make(artifact: str = modelstore.LATEST, *, basic_formats: bool = False, buckets: bool = False) -> str:
    """The tag of the Bento with this artifact inside; it is built unless the store has one of the same content.

    With ``basic_formats`` it reads neither HEIC nor JPEG XL, and has no package under the GPL. With ``buckets`` it can
    follow what is published in a bucket.

    Raises ClipRetrievalError, NotPinned or CannotBuild.
    """
    tag, folder = modelstore.resolve(artifact)
    if tag == str(folder):
        raise CannotBuild(
            f"{artifact} is a folder: a Bento takes its artifact from the BentoML model store; name it by its tag"
        )
    with tempfile.TemporaryDirectory() as staging:
        stage(Path(staging), tag, Artifact.open(folder), basic_formats=basic_formats, buckets=buckets)
        version = f"{tag.partition(':')[2]}-{folder_fingerprint(Path(staging))[:8]}"
        with suppress(NotFound):
            return str(bentoml.get(f"{modelstore.NAME}:{version}").tag)
        _build(staging, version)
    return f"{modelstore.NAME}:{version}"


def _build(staging: str, version: str) -> None:
    # The Bento names its artifact itself: the settings of this shell must not get in.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BENTO_CLIP_")}
    command = [sys.executable, "-m", "bentoml", "build", "--output", "tag", "--version", version, "."]
    done = subprocess.run(command, cwd=staging, env=environment, stdout=sys.stderr, check=False)
    if done.returncode:
        raise CannotBuild(f"bentoml build failed (exit status {done.returncode}); its messages are above")


def stage(folder: Path, tag: str, artifact: Artifact, *, basic_formats: bool = False, buckets: bool = False) -> None:
    """Fill the empty ``folder`` with the contents of the Bento. An artifact in Milvus brings Milvus' client."""
    bentofile = yaml.safe_load((ROOT / "bentofile.yaml").read_text(encoding="utf-8"))
    template = bentofile["docker"]["dockerfile_template"]
    included = (path for pattern in bentofile["include"] for path in ROOT.glob(pattern))
    data = (path for path in included if path.is_file() and path.suffix != ".py")
    for path in (*modules(ROOT), *data, ROOT / template):
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    bentofile |= {
        "labels": labels(artifact),
        # The Bento brings this artifact under the alias that is the settings' default, so it serves this one even if
        # the store has newer ones. (BentoML forgets the alias of a model that the service names too.)
        "models": [{"tag": tag, "alias": modelstore.LATEST}],
    }
    (folder / "bentofile.yaml").write_text(yaml.safe_dump(bentofile), encoding="utf-8")
    (folder / "requirements.txt").write_text(
        "\n".join(pins.serving(basic_formats=basic_formats, buckets=buckets, milvus=artifact.is_in_milvus)) + "\n",
        encoding="utf-8",
    )


def labels(artifact: Artifact) -> dict[str, str]:
    """Labels of the Bento: versions of the product and its parts. BentoML allows few characters in label values."""
    return {"product": __version__, "artifact": artifact.manifest.version, **model_yaml.labels(artifact.manifest)}


def modules(root: Path) -> list[Path]:
    """What processes begin with, and every file of the package that these import, directly or not, at the top or in
    functions."""
    waiting = [root / PACKAGE / name for name in STARTED]
    found = {*waiting}
    while waiting:
        new = {path for name in _imports(waiting.pop()) for path in _files(root, name)} - found
        found |= new
        waiting += new
    return sorted(found)


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files(root: Path, name: str) -> Iterator[Path]:
    """The files that ``import name`` runs: those of its packages, and the module's own."""
    parts = name.split(".")
    if parts[0] == PACKAGE:
        for length in range(1, len(parts) + 1):
            path = root.joinpath(*parts[:length])
            yield from (file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", default=modelstore.LATEST, help="tag in the BentoML model store")
    parser.add_argument("--basic-formats", action="store_true", help=BASIC_FORMATS)
    parser.add_argument("--buckets", action="store_true", help=BUCKETS)
    arguments: Any = parser.parse_args()
    try:
        print(make(arguments.artifact, basic_formats=arguments.basic_formats, buckets=arguments.buckets))
    except (ClipRetrievalError, pins.NotPinned, CannotBuild) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
