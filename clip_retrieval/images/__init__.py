"""From the bytes of an image to upright RGB pixels, or the reason why the image is rejected.

tiff_directory.py  the first directory of a TIFF
kinds.py      what a file is, by its first bytes
decode.py     every image enters here: the images of a collection and the uploads to the service
verified.py   an image again, if it is still the image that was validated
shrink.py     the small WebP images that people see
"""
