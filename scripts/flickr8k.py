"""Flickr8k from its public files: unpack, check, build an artifact and evaluate it, in one command.

    python -m scripts.flickr8k Flickr8k_Dataset.zip Flickr8k_text.zip --model ViT-B-32 --pretrained openai
    python -m scripts.flickr8k kaggle-archive.zip --model demo
    python -m scripts.flickr8k some/flickr8k/folder --splits published

Takes the files in either public layout as archives, as one folder, or as http(s) addresses of archives. Flickr8k is for
non-commercial research and is not ours to hand on, so no address is built in. Archives are compared with the MD5
sums that the R package torchvision pins for the two original ones (mlverse/torchvision, R/dataset-flickr.R); the
SHA-256 of every archive is printed and kept in archives.json beside the data. No SHA-256 has been published.

``--splits drawn`` (the default) ignores the published lists and draws 70/15/15 by image, which for the 8,091
images gives the reference's sizes, 5,663/1,213/1,215; the images in each are this project's own draw.
``--splits published`` keeps the authors' 6,000/1,000/1,000 (the 91 images in no list are divided in the same way).
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from collections import Counter
from pathlib import Path

from rich.progress import wrap_file

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.cli import console
from clip_retrieval.datasets.flickr import captions_name
from clip_retrieval.datasets.place import Place
from clip_retrieval.errors import ClipRetrievalError, SourceError

MD5 = {
    "f18a1e2920de5bd84dae7cf08ec78978": "the original Flickr8k_Dataset.zip",
    "bf6c1abcb8e4a833b7f922104de18627": "the original Flickr8k_text.zip",
}
IMAGES = 8091
DRAWN = {"train": 5663, "val": 1213, "test": 1215}
LISTS = "Flickr_8k.*Images.txt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", help="archives, their addresses, or one folder")
    parser.add_argument("--work", type=Path, default=Path("build/flickr8k"), help="folder where archives are unpacked")
    parser.add_argument("--splits", choices=("drawn", "published"), default="drawn")
    parser.add_argument("--model", default="ViT-B-32", help="model, as in bento-clip build (default: ViT-B-32)")
    parser.add_argument("--pretrained", help="tag or checkpoint file, such as openai")
    parser.add_argument("--output", type=Path, default=Path("reports/flickr8k"), help="folder for the reports")
    options = parser.parse_args()
    try:
        folder = collect(options.sources, options.work, options.splits)
        print(run(folder, options.model, options.pretrained, options.output))
    except (ClipRetrievalError, OSError) as error:
        raise SystemExit(f"flickr8k: {error}") from error


def collect(sources: list[str], work: Path, splits: str) -> Path:
    """One folder in a layout that the reader knows, made of links to the unpacked files. Raises SourceError."""
    if len(sources) == 1 and Path(sources[0]).is_dir():
        unpacked = Path(sources[0])
    else:
        unpacked = work / "unpacked"
        unpacked.mkdir(parents=True, exist_ok=True)
        archives = [_fetched(source, work) for source in sources]
        (work / "archives.json").write_text(json.dumps([_checked(archive) for archive in archives], indent=2))
        for archive in archives:
            _unpack(archive, unpacked)
    folders = [unpacked, *(path for path in sorted(unpacked.rglob("*")) if path.is_dir())]
    named = ((folder, captions_name(Place.at(folder))) for folder in folders)
    captions = next((folder / name for folder, name in named if name is not None), None)
    if captions is None:
        raise SourceError(f"there are no captions of Flickr8k in {', '.join(sources)}; give the text archive as well")
    return _laid_out(unpacked, captions, work / splits, splits)


def run(folder: Path, model: str, pretrained: str | None, output: Path) -> str:
    """Build and evaluate with the command line, and check the sizes of the splits. Returns the artifact's tag."""
    command = [sys.executable, "-m", "clip_retrieval"]
    choice = ["--model", model, *(["--pretrained", pretrained] if pretrained else [])]
    built = subprocess.run([*command, "build", str(folder), *choice], stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode:
        raise SourceError("the build failed; see above")
    tag = built.stdout.split()[-1]
    _check_sizes(Artifact.open(modelstore.resolve(tag)[1], verify=False).manifest.data.splits, folder.name)
    images = ["--images", str(folder), "--output", str(output)]
    if subprocess.run([*command, "evaluate", tag, *images], check=False).returncode:
        raise SourceError("the evaluation failed; see above")
    return tag


def _check_sizes(sizes: dict[str, int], splits: str) -> None:
    total = sum(sizes.values())
    if total != IMAGES:
        console.note(f"this is not the whole of Flickr8k: {total:,} images and not {IMAGES:,}")
    elif splits == "drawn" and Counter(sizes) != Counter(DRAWN):
        # Equal images are never divided, which can move a size by a few.
        console.note(f"the splits are {sizes}, the reference's {DRAWN}: some images are equal and kept together")
    else:
        console.note(f"splits: {sizes}")


def _fetched(source: str, work: Path) -> Path:
    if not source.startswith(("http://", "https://")):
        return Path(source)
    target = work / source.rsplit("/", 1)[-1]
    if not target.exists():
        partial = target.with_suffix(".partial")
        with urllib.request.urlopen(source) as answer, partial.open("wb") as file:
            size = int(answer.headers.get("Content-Length") or 0)
            with wrap_file(answer, size, description=target.name, console=console.err) as read:
                shutil.copyfileobj(read, file)
        partial.replace(target)
    return target


def _checked(archive: Path) -> dict[str, str]:
    sums = {}
    for name in ("md5", "sha256"):
        with archive.open("rb") as file:
            sums[name] = hashlib.file_digest(file, name).hexdigest()
    known = MD5.get(sums["md5"], "no archive that a sum is known of")
    console.note(f"{archive.name}: {known}; SHA-256 {sums['sha256']}")
    return {"archive": archive.name, **sums, "known_as": known}


def _unpack(archive: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(target)  # zipfile keeps members inside the target
    except zipfile.BadZipFile as error:
        raise SourceError(f"{archive} is damaged or not a zip archive; download it again") from error


def _laid_out(unpacked: Path, captions: Path, folder: Path, splits: str) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "Images").mkdir(parents=True)
    shutil.copy2(captions, folder / captions.name)
    if splits == "published":
        lists = sorted(captions.parent.glob(LISTS))
        if len(lists) != len(DRAWN):
            raise SourceError(f"{captions.parent} lacks the three published lists ({LISTS}); use --splits drawn")
        for file in lists:
            shutil.copy2(file, folder / file.name)
    for image in sorted(unpacked.rglob("*.jpg")):
        link = folder / "Images" / image.name
        # macOS archives hold a "._name.jpg" of metadata beside each image.
        if not image.name.startswith(".") and not link.exists():
            link.symlink_to(image.resolve())
    return folder


if __name__ == "__main__":
    main()
