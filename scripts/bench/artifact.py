"""The artifact of the synthetic collection of ``collection.py``, made once and kept in the cache folder.

    python -m scripts.bench.artifact --images 8091         # prints the folder; ViT-B/32 with random weights

Speed does not depend on the weights, so seeded random ones serve where no model hub can be reached.
"""

import argparse
import hashlib
import inspect
import shutil
from pathlib import Path

import numpy as np

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.manifest import DataInfo, artifact_version
from clip_retrieval.artifacts.record_store import RecordStore
from clip_retrieval.artifacts.writer import write_artifact
from clip_retrieval.encoders import read_info
from clip_retrieval.indexes import choose, families
from clip_retrieval.indexes.choose import choose_index
from clip_retrieval.indexes.measure import LEAST_RECALL
from clip_retrieval.models.prepare import cache_dir, prepare_encoder
from scripts.bench import collection
from scripts.common.console import err
from scripts.common.paths import SAMPLE

MODEL = "ViT-B-32"


def random_weights(model: str) -> str:
    """A checkpoint file of the model with seeded random weights."""
    path = cache_dir() / "bench" / f"{model}-random.pt"
    if not path.exists():
        import torch

        from clip_retrieval.encoders.open_clip import open_clip

        torch.manual_seed(0)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(open_clip.create_model(model).state_dict(), path)
    return str(path)


def make_artifact(encoder: Path, images: int = collection.IMAGES) -> Artifact:
    """The artifact of ``images`` synthetic images, five captions each, with the encoder in the folder ``encoder``."""
    info = read_info(encoder)
    captions = images * collection.CAPTIONS_EACH
    code = hashlib.sha256("".join(map(inspect.getsource, (collection, families, choose))).encode()).hexdigest()[:8]
    data = DataInfo(
        name="synthetic",
        fingerprint=f"clip-like {images} {code} with its encoder",
        images=images,
        captions=captions,
        rejected=0,
        splits={"train": images, "val": 0, "test": 0},
        split_ratios=(1.0, 0.0, 0.0),
        split_seed=0,
    )
    version = artifact_version(info, data, LEAST_RECALL)
    target = cache_dir() / "bench" / version
    if target.exists():
        return Artifact.open(target)
    with err.status(f"building indexes of {images} images and {captions} captions"):
        image_vectors, texts = collection.clip_like(images, collection.CAPTIONS_EACH, info.dim)
        image_index = choose_index(image_vectors, texts, query_kind="captions")
        caption_index = choose_index(texts, image_vectors, query_kind="images")

    def fill(folder: Path) -> None:
        shutil.copytree(encoder, folder / "encoder")
        for name, vectors, chosen in (("images", image_vectors, image_index), ("captions", texts, caption_index)):
            np.save(folder / f"{name}.npy", vectors)
            chosen.index.save(folder / f"{name}.faiss")
        with RecordStore.create(folder / "records.sqlite") as store:
            store.add(*collection.records(collection.sample_captions(SAMPLE), images, collection.CAPTIONS_EACH))

    return write_artifact(
        target,
        version=version,
        encoder=info,
        data=data,
        images=image_index.built,
        captions=caption_index.built,
        fill=fill,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=collection.IMAGES, help="number of images (default: 8091)")
    arguments = parser.parse_args()
    encoder = prepare_encoder(MODEL, random_weights(MODEL))
    print(make_artifact(encoder, arguments.images).path)


if __name__ == "__main__":
    main()
