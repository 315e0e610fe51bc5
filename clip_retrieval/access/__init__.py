"""Who asks, what they may do and how much of it; knows neither HTTP nor what is served.

caller.py        the one who sent a request
addresses.py     addresses of clients and of proxies
cost.py          what a request costs
shared_counts.py how much each caller has spent, for all workers of a service
limits.py        how much a caller may spend, and what is left
"""
