"""ASGI middleware around every route of the service, those of BentoML included; the outermost first.

request_ids.py    an id for each request
access_log.py     a line in the log for each request
disconnects.py    ends the work for a client that went away
proxies.py        believes what trusted proxies say of a request; the prefix of the path
cors.py           lets pages of allowed origins read the answers
error_bodies.py   gives every answer of 400 and above the API's one body
host_check.py     refuses what is sent to another name
route_check.py    lets in what the table of routes allows
authentication.py lets in who may do what the row needs
limits.py         refuses what is over a caller's limit
intake.py         takes in bodies, at a rate and within a bound of memory
body_limit.py     hands a complete body on
body_memory.py    takes the memory that a complete body needs
admission.py      lets in as many at once as there are places, and bounds their time
json_check.py     refuses JSON with more in it than its route can use
form_check.py     refuses a form that was cut off
beforehand.py     what happens before BentoML's own routes answer: fresh metrics, honest readiness
native_images.py  decodes the images of BentoML's own API
native_texts.py   counts its texts
first_request.py  hands over what only a request carries
own_routes.py     hands a request to this project's application, unless BentoML's answers it
"""
