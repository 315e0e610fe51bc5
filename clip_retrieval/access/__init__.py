"""Who asks, what they may do and how much of it; knows neither HTTP nor what is served.

caller.py      the one who sent a request
addresses.py   addresses of clients and of proxies
"""
