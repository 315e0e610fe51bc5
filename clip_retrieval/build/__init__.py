"""From a data source and an encoder to an artifact.

validate.py       checks every image and caption, and reports what was kept and rejected
splits.py         which images train, which tune and which test
embed.py          bulk embedding, resumable, in bounded memory
pipeline.py       all of it, in order
"""
