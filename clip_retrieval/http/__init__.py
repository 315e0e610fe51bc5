"""The HTTP surface: routes, the page, middleware, the wire protocol.

middleware.py         what surrounds every route: limits, media types, disconnects, error bodies
scrape.py             brings the metrics up to date before they are read
uvicorn_protocol.py   how the server reads HTTP
page_routes.py        the search page, its thumbnails and examples
exchange.py           one request on its way
composed_routes.py    routes of composed queries
app.py                the application and its short routes
"""
