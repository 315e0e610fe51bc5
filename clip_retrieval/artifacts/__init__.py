"""The versioned folder that can answer queries alone: write, open, store, copy, compare, re-index.

array_file.py     files of arrays, mapped one at a time
record_store.py   the records in SQLite
thumbnails.py     small images for people, in SQLite
originals.py      the original files of the images
columns.py        split and metadata as typed columns, written once and memory-mapped
vector_file.py    a file of vectors: mapped, hashed and checked
record_arrays.py  other arrays that follow from the records
word_split.py     texts and names as words
words.py          which images and captions have a word, in SQLite FTS5
word_search.py    which rows have the words of a query, and how well
word_fusion.py    one order of what vectors found and what words found
manifest_file.py  the file of the manifest: its name, its schema, its hash
regression.py     logistic regression
pairs.py          captions and images as pairs, right and wrong ones
trials.py         captions as if they were searched for, with their image and without
confidence.py     the share of right answers at a cosine, and the bound of what is near enough
manifest.py       what an artifact says of itself
artifact.py       the folder, open for reading
writer.py         writes the folder
sharing.py        files that several versions have in common are stored once
in_use.py         whether a process has an artifact open
model_yaml.py     what BentoML's tools show of an artifact
modelstore.py     artifacts in BentoML's model store
slim.py           an artifact without its vectors, which Milvus has
milvus_work.py    names in Milvus, and what a run that was killed has left there
in_milvus.py      an artifact with its indexes in Milvus, from one that exists
drop_index.py     what deleted versions leave in Milvus is dropped
retention.py      which versions may go when only the newest are kept
transfer.py       an artifact as one file
published_url.py  the URLs of published versions
published_note.py which version a URL named when its bucket last answered
published.py      artifacts in a bucket, and which of them is published under a name
compare.py        what differs between two artifacts
promises.py       whether an artifact keeps what its manifest promises, measured now
reindex.py        an artifact with indexes chosen to a budget, from one that exists
"""
