"""The versioned folder that can answer queries alone: write, open, store, copy, compare, re-index.

record_store.py   the records in SQLite
thumbnails.py     small images for people, in SQLite
artifact.py       the folder and its manifest
modelstore.py     artifacts in BentoML's model store
transfer.py       an artifact as one file
compare.py        what differs between two artifacts
reindex.py        an artifact with indexes chosen to a budget, from one that exists
"""
