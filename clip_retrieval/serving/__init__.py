"""The processes of a server: settings, encoding in batches, the way of a query, caches, clocks, counts and health.
Knows no route.

start_profile.py   when each stage of a start has ended
bento_worker.py    what a worker knows of itself before BentoML is imported
settings.py        settings from the environment
budget.py          the memory that requests may take
entry.py           who may do what, from the settings
request_id.py      the id of the request that is being answered
log_lines.py       what a log record becomes before it is written
json_logs.py       log lines as JSON
shared_state.py    what the workers of one service share
service_folder.py  the folder that they share, and what all serve first
room.py            the memory for work beside requests
memory_watch.py    what a worker holds, and what it has for its requests
lifeline.py        processes that live and die together
priority.py        which thread runs first, and on which core
leading.py         what a supervisor has ready for its workers
replacing.py       when a worker takes the place of another
starting.py        what is answered while no worker is ready
large_bodies.py    what is large is read in a thread
pace.py            when refusals are given
traffic.py         requests in progress, and how many were rejected
cache.py           rendered answers and vectors that are kept
replica_cache.py   rendered answers that many services share
latencies.py       counts and percentiles for ``/stats``
tracing.py         stages of a request as spans
prometheus.py      metrics for ``/metrics``
batch_watch.py     whether batches end, and how
decoder.py         a process that decodes images
decoders.py        images decoded beside the event loop
originals_folder.py  the original files where they still are
engine.py          texts and images encoded a batch at a time
vector_text.py     arrays as text, for messages between services
remote_engine.py   the same by a service that encodes for this one
encoder_proxy.py   that service as BentoML gives it
child.py           a module in a process of its own, at low priority
served.py          an artifact that is open, with its encoder
verification.py    the artifact that is served first is verified beside loading it
memory_parts.py    where the memory of a service is
without_cloud.py   BentoML's parts for services, without its client of BentoCloud
bento_dispatch.py  BentoML's batch queues, and nearly every private name of BentoML
query_service.py   the one way of a query: cache, encode, search, render
asked.py           searches and clicks for the query log
mirror.py          queries that two artifacts answer
rollout.py         what all workers of a host agree to serve
judge.py           an artifact is measured before it takes over
swap.py            another artifact is served, between two requests
kept_states.py     states of a changing collection that next pages come from
change_inputs.py   what a request wants to change, encoded
change_work.py     one request for changes inside a transaction
changes.py         changes are made, and those of other processes followed
state.py           what a process keeps between requests
health.py          whether a worker really answers
native_inputs.py   inputs of BentoML's own APIs as jobs
supervisor.py      BentoML's supervisor, with other manners
process.py         the interpreter's switches, a worker's place among the others, and how a process ends
beginning.py       what a worker does before all else: it takes its place and begins to load
compactor.py       changes become an artifact, in the background
worker.py          one worker process, wired
encoder_worker.py  one worker process of a service that encodes for others
work.py            one worker as a process, without what no worker needs
workers.py         the processes of workers, without BentoML's supervisor
launch.py          the supervisor that starts fast and stays small
"""
