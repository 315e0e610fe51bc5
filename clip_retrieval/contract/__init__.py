"""What goes over the wire: requests, answers and errors of the HTTP API. Needs pydantic only.

base.py           bounds, scores and the error body
image_input.py    what a user may pass as an image, as bytes with a name
queries.py        requests: what each search route reads
answers.py        answers of the routes that search and encode
collection.py     what the API says of the collection
status.py         what the API says of the server
"""
