"""One server process: settings, engine, clocks and counts. Knows no route.

settings.py       settings from the environment
json_logs.py      log lines as JSON
latencies.py      counts and percentiles for ``/stats``
tracing.py        stages of a request as spans
traffic.py        requests under way and rejected
prometheus.py     metrics for ``/metrics``
engine.py         queries answered a batch at a time
"""
