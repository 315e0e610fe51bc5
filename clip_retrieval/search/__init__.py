"""A collection and a query to hits, without HTTP.

columns.py        which rows fulfil a condition on one column
filters.py        which rows a ``where`` lets through
compose.py        one query vector from several
ranking.py        one order of all rows, and pages cut from it
hits.py           what a search found
results.py        hits as results of the API
retriever.py      encoder, indexes and records together
"""
