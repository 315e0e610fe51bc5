"""Who asks, what they may do and how much of it; knows neither HTTP nor what is served.

addresses.py      addresses of clients and of proxies
caller.py         the one who sent a request, and what a scope includes
keys.py           API keys as they are kept: named, hashed, with a scope and an end
key_file.py       the file of the keys
key_ring.py       the keys that a process accepts, taken up anew while it runs
gate.py           what a request may do
cost.py           what a request costs
redis_url.py      the URL of a Redis or Valkey server
shared_counts.py  how much each caller has spent, for all workers of a service
limits.py         how much a caller may spend, and what is left
"""
