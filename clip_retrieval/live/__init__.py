"""A collection that changes while it is served: an artifact and the changes that came after it.

change.py       the state of an image after a change, and an entry of the log
image_bytes.py  that state as bytes, and back
log_file.py     the files of the log: how they are opened, and their errors in one sentence
log_rows.py     the rows of the log: its schema, and a hash for every row
transaction.py  what one transaction of the log reads and writes
log.py          the durable log of changes: one writer at a time, any number of readers
committer.py    the changes of one process: those that wait share a commit
"""
