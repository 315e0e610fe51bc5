"""CLIP retrieval as a BentoML deployment.

The way of the data, which is also the order of the modules:

    captioned image → validated record → embedding → index → artifact → service → client
       datasets/          validate.py      encoders/   index.py  artifact.py  service.py  client.py
"""

__version__ = "0.1.0"
