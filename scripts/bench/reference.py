"""The baseline of the benchmark: CLIP search as a notebook project puts it behind FastAPI.

open_clip in float32, eager, every text padded to 77 tokens, one request at a time; HNSW with M 16 and efConstruction
200; no batching. Run by ``scripts/bench_serving.py`` in a process of its own.
"""

import argparse
import io
import time
from pathlib import Path
from typing import Annotated, Any

import faiss
import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, File, UploadFile
from PIL import Image
from pydantic import BaseModel

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.encoders.open_clip import open_folder


class TextQuery(BaseModel):
    text: str
    k: int = 5


def create_app(model_folder: Path, artifact: Artifact) -> FastAPI:
    model, preprocess, tokenizer = open_folder(model_folder)
    model.eval()
    images, captions = artifact.store().images(), artifact.store().captions()
    indexes: dict[str, Any] = {}
    for name, vectors in (("images", artifact.vectors("images")), ("captions", artifact.vectors("captions"))):
        kept = artifact.path.with_name(f"{artifact.path.name}-reference-{name}.faiss")
        if not kept.exists():
            index = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = 200
            index.add(np.ascontiguousarray(vectors))
            faiss.write_index(index, str(kept))
        indexes[name] = faiss.read_index(str(kept))
        indexes[name].hnsw.efSearch = 128
    app = FastAPI()

    def search(index: Any, vector: torch.Tensor, k: int) -> list[tuple[int, float]]:
        scores, rows = index.search(vector.numpy(), k)
        return list(zip(rows[0].tolist(), scores[0].tolist(), strict=True))

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    @app.post("/search/images")
    async def search_images(query: TextQuery) -> dict[str, Any]:
        start = time.perf_counter()
        with torch.no_grad():
            vector = model.encode_text(tokenizer([query.text]), normalize=True)
        found = search(indexes["images"], vector, query.k)
        return {
            "query": query.text,
            "results": [
                {"rank": rank, "image_id": images[row].image_id, "similarity_score": score}
                for rank, (row, score) in enumerate(found, 1)
            ],
            "query_time_ms": (time.perf_counter() - start) * 1e3,
        }

    @app.post("/search/text")
    async def search_text(file: Annotated[UploadFile, File()], k: int = 5) -> dict[str, Any]:
        start = time.perf_counter()
        pixels = preprocess(Image.open(io.BytesIO(await file.read())).convert("RGB"))[None]
        with torch.no_grad():
            vector = model.encode_image(pixels, normalize=True)
        found = search(indexes["captions"], vector, k)
        return {
            "results": [
                {"rank": rank, "caption": captions[row].text, "similarity_score": score}
                for rank, (row, score) in enumerate(found, 1)
            ],
            "query_time_ms": (time.perf_counter() - start) * 1e3,
        }

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="local-dir: folder of the model")
    parser.add_argument("artifact", type=Path, help="artifact folder, for its vectors and records")
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    app = create_app(arguments.model, Artifact.open(arguments.artifact, verify=False))
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
