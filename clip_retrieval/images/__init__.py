"""From the bytes of an image file to upright RGB pixels, or the reason why not.

decode.py         every image enters here: files of a collection and uploads of the service
"""
