"""Draws docs/demo.png: three text queries and their first three pictures, as the demo artifact answers them.

python scripts/readme_picture.py            # the newest artifact, the bundled photographs
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from clip_retrieval.modelstore import LATEST
from clip_retrieval.retriever import Retriever

ROOT = Path(__file__).resolve().parent.parent
QUERIES = ("a red panda", "an owl", "a windmill by the sea")
TILE, MARGIN, CAPTION = 210, 12, 24
INK, PAPER = "#1d1d1f", "#ffffff"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", default=LATEST, help="tag or folder of the artifact")
    parser.add_argument("--pictures", type=Path, default=ROOT / "clip_retrieval" / "sample", help="their folder")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "demo.png")
    arguments = parser.parse_args()
    retriever = Retriever.load(arguments.artifact)
    row = CAPTION + TILE + CAPTION + MARGIN
    sheet = Image.new("RGB", (MARGIN + 3 * (TILE + MARGIN), MARGIN + len(QUERIES) * row), PAPER)
    draw = ImageDraw.Draw(sheet)
    bold, plain = ImageFont.load_default(18), ImageFont.load_default(13)
    for number, query in enumerate(QUERIES):
        top = MARGIN + number * row
        draw.text((MARGIN, top - 4), f"\u201c{query}\u201d", INK, bold)
        for hit in retriever.search_images(query, k=3):
            left = MARGIN + (hit.rank - 1) * (TILE + MARGIN)
            with Image.open(arguments.pictures / hit.image.image_path) as picture:
                sheet.paste(ImageOps.fit(picture, (TILE, TILE)), (left, top + CAPTION))
            draw.text((left, top + CAPTION + TILE + 3), f"{hit.rank}.  cosine {hit.score:.3f}", INK, plain)
    sheet.quantize(128).save(arguments.output, optimize=True)
    print(arguments.output)


if __name__ == "__main__":
    main()
