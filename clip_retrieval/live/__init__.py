"""A collection that changes while it is served: an artifact and the changes that came after it.

change.py           the state of an image after a change, and an entry of the log
image_bytes.py      that state as bytes, and back
kept_originals.py   the original files of added images, beside the log
log_file.py         the files of the log: how they are opened, and their errors in one sentence
log_rows.py         the rows of the log: its schema, and a hash for every row
lineage.py          which artifacts the changes of a log can come after
transaction.py      what one transaction of the log reads and writes
log.py              the durable log of changes: one writer at a time, any number of readers
committer.py        the changes of one process: those that wait share a commit
etag.py             the name of an image's state
edit.py             what a change makes of the present state of an image
growing.py          arrays that only grow
thumbnail_spool.py  thumbnails of added images, outside of memory
added_fields.py     the values of added images, field by field
added_words.py      the words of added images and captions
added.py            what was added: rows that all states of a collection share
live_index.py       one index over the rows of several, without removed rows
live_filter.py      which rows a ``where`` lets through, and which metadata a change may bring
live_rows.py        which rows a state has, and which of them can be found
live_words.py       which rows of a state have a word
frozen.py           indexes over many added rows
live_collection.py  a collection and its changes as one state that is searched
compaction.py       a live collection becomes an artifact
compacting.py       the changes in a log become an artifact of the model store
"""
