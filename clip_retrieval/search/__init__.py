"""A collection and a query to hits, without HTTP.

columns.py        which rows fulfil a condition on one column
browse.py         images in an order of their own
filters.py        which rows a ``where`` lets through
field_counts.py   what the fields of some rows hold, counted; also beside the other conditions of a filter
expressions.py    conditions as a filter expression of Milvus
query.py          one query of any caller: parts, target and page
compose.py        one query vector from several
logged.py         the searches of a query log as vectors
ranking.py        one order of all rows, and pages cut from it
hits.py           what a search found
fusion.py         the orders by words, and by words and vectors
results.py        hits as the JSON of the API's results
fragments.py      parts of that JSON that are kept
searchable.py     what a search asks of a collection
modes.py          whether a collection can answer by words
page.py           the page of a query
collection.py     one artifact, open for searching
retriever.py      a collection and its encoder: the one search
"""
