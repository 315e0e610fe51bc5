"""Who asks, what they may do and how much of it; knows neither HTTP nor what is served.

caller.py    the one who sent a request, and what a scope includes
keys.py      API keys as they are kept: named, hashed, with a scope and an end
key_file.py  the file of the keys
key_ring.py  the keys that a process accepts, taken up anew while it runs
gate.py      what a request may do
"""
