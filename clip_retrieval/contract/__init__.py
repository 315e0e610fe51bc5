"""The wire format of the HTTP API: requests, answers and errors. Needs pydantic only.

plain_words.py      what is wrong with a value, in plain words
base.py             base models, bounds, scores and the error body
cards.py            results as HTML for notebooks
iso_dates.py        dates in texts, as periods of time
json_size.py        how much is in a JSON text
filter_language.py  filters as a person writes them
conditions.py       filters as a tree of conditions
image_input.py      the images that a user may pass, as bytes with a name
queries.py          the requests of the routes that search and encode
clicks.py           what was opened among the results of a search
answers.py          the answers of the routes that search and encode
embeddings.py       embeddings in the form of OpenAI's API
collection.py       the answers about the collection
changes.py          the requests that change the collection, and their answers
status.py           the answers about the server
"""
