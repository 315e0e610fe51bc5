"""One server process: settings, encoding in batches, the way of a query, caches, clocks and counts. Knows no route.

settings.py        settings from the environment
json_logs.py       log lines as JSON
traffic.py         requests in progress, and how many were rejected
cache.py           rendered answers and vectors that are kept
latencies.py       counts and percentiles for ``/stats``
tracing.py         stages of a request as spans
prometheus.py      metrics for ``/metrics``
engine.py          texts and images encoded a batch at a time
bento_dispatch.py  BentoML's batch queues, and every private name of BentoML
query_service.py   the one way of a query: cache, encode, search, render
kept_states.py     states of a changing collection that next pages come from
change_inputs.py   what a request wants to change, encoded
change_work.py     one request for changes inside a transaction
changes.py         changes are made, and those of other processes followed
state.py           what a process keeps between requests
native_inputs.py   inputs of BentoML's own APIs as jobs
process.py         the interpreter's switches, and how a process ends
"""
