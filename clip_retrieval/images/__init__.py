"""From the bytes of an image to upright RGB pixels, or the reason why the image is rejected.

base64_text.py     an image file as text, in base64
tiff_directory.py  the first directory of a TIFF: its tags, and whether it is a camera's raw file
kinds.py           what a file is, by its first bytes
jpeg.py            before Pillow reads a JPEG: bounded work, no metadata, missing pixels
png.py             the same for a PNG
gif.py             the same for a GIF
webp.py            the same for a WebP
tiff.py            the same for a TIFF
bits.py            the bits in the headers of video codecs
av1.py             the sizes that frames of AV1 can have
hevc.py            the sizes that frames of HEVC can have
media_boxes.py     the sizes of all that a HEIC or an AVIF can decode to
heif.py            HEIC by libheif
jxl.py             JPEG XL by libjxl
memory.py          how much memory decoding takes
colours.py         the colours of a decoded image as RGB
decode.py          every image enters here: the images of a collection and the uploads to the service
verified.py        an image again, if it is still the image that was validated
shrink.py          the small WebP images that people see
"""
