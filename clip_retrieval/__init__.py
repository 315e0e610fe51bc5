"""CLIP retrieval as a BentoML deployment.

The way of the data, and the folders that it goes through; docs/architecture.md has all of them:

    captioned image → checked record → embedding → index   → artifact  → service  → client
    datasets/         build/           encoders/   indexes/  artifacts/  serving/   client/
"""

__version__ = "0.1.0"
