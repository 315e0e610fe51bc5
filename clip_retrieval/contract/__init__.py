"""What goes over the wire: requests, answers and errors of the HTTP API. Needs pydantic only.

schemas.py        values and answers of the short routes, the error body
image_input.py    what a user may pass as an image, as bytes with a name
queries.py        composed queries: what ``POST /search`` reads
answers.py        answers of the composed routes
"""
