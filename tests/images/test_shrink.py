"""Thumbnails are small, upright and without metadata; no image is enlarged."""

from io import BytesIO

import pytest
from PIL import ExifTags, Image

from clip_retrieval.images.decode import decode_image
from clip_retrieval.images.shrink import PLANS, Plan, shrink


def read(webp: bytes | None) -> Image.Image:
    assert webp is not None
    image = Image.open(BytesIO(webp))
    assert image.format == "WEBP"
    return image


@pytest.mark.parametrize("plan", [*PLANS, Plan(80, 160, 90)], ids=str)
@pytest.mark.parametrize(("width", "height"), [(1500, 1000), (700, 1100), (320, 200), (321, 1), (1, 1)])
def test_sizes_fit_keep_the_shape_and_never_enlarge(plan: Plan, width: int, height: int) -> None:
    small, large = shrink(Image.new("RGB", (width, height), "red"), plan)
    longest = max(width, height)
    wanted = [(small, plan.small)] + ([(large, plan.large)] if large is not None and plan.large else [])
    for webp, limit in wanted:
        image = read(webp)
        assert max(image.size) == min(longest, limit)
        scale = min(1, limit / longest)
        assert abs(image.width - width * scale) <= 1
        assert abs(image.height - height * scale) <= 1
    assert (large is None) == (plan.large is None or longest <= plan.small)


def test_a_thumbnail_is_upright_and_has_no_metadata() -> None:
    wide = Image.new("RGB", (800, 400), "red")
    wide.paste("blue", (0, 0, 400, 400))  # blue on the left, and after a quarter turn to the right on top
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.ImageDescription] = "taken at home"
    file = BytesIO()
    wide.save(file, "JPEG", exif=exif, icc_profile=b"profile", quality=95)
    small, large = shrink(decode_image(file.getvalue()), PLANS[0])
    for webp, expected in ((small, (160, 320)), (large, (400, 800))):
        image = read(webp)
        assert image.size == expected
        top, bottom = (image.convert("RGB").getpixel((80, y)) for y in (10, image.height - 10))
        assert top[2] > 200 > top[0]  # type: ignore[index]
        assert bottom[0] > 200 > bottom[2]  # type: ignore[index]
        assert not {"exif", "icc_profile", "xmp"} & set(image.info)


def test_the_same_image_gives_the_same_bytes() -> None:
    image = Image.effect_noise((400, 300), 80).convert("RGB")
    assert shrink(image, PLANS[1]) == shrink(image.copy(), PLANS[1])
