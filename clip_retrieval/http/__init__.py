"""The HTTP surface: routes, the page, middleware, the wire protocol.

content_encoding.py   bodies that are packed
policy.py             the table of routes: media type, bytes, cost, and what answers under overload
request_context.py    what the middleware knows of a request
origins.py            which pages of other origins may use the API
forwarded.py          what proxies say of a request
credentials.py        the key that a request brings
error_response.py     the one body of every error
known_names.py         query parameters and form fields that there are
statuses.py           the status of each error
any_text.py           a parameter of a path that may have any characters
accept.py             which media type a client prefers
audit.py              the record of changes: who changed what
uvicorn_protocol.py   how the server reads HTTP
whole_body.py         a body that is read whole
json_bounds.py        bodies are read: large JSON in a thread
middleware/           what surrounds every route
change_headers.py     the headers that change requests bring
min_sequence.py       the change that a request waits for
exchange.py           one request: its clock and its answer
page.py               the search page, made of the files in ``web/``, as a response
page_routes.py        the page's thumbnails and examples
original_routes.py    the original file of an image
info_routes.py        what is served, health, counts, the collection's fields and records
artifact_routes.py    which artifact is served, and another one in its place
image_form.py         the form that an image is uploaded with
upload_options.py     what the URL or the form of an upload says beside the image
query_routes.py       the short routes: queries of one part
embeddings_routes.py  embeddings and models in the form of OpenAI's API
composed_routes.py    queries of several parts, and several queries at once
click_routes.py       what was opened among the results of a search
change_routes.py      images are added, changed and removed
described_operations.py  what the description of the API calls each operation, and in which order
described_keys.py     what the description of the API says of keys
description.py        what OpenAPI says of all routes
docs_pages.py         the pages of that description
app.py                the application: all routes and the answers to what is wrong
overload.py           what is refused before everything else
stack.py              the middleware in its order
"""
