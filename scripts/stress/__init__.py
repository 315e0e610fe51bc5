"""What ``scripts/chaos.py`` does to a build and to a service, and whether it was borne.

outcome.py   what came of one trial
place.py     folders of a run of their own: the artifact, commands, services and their processes
traffic.py   many clients at once, counted by outcome
kills.py     kill -9 of builds, of workers and of the supervisor
disk.py      a disk without room
crowds.py    ten times too many clients; clients that send a byte a second
soak.py      a long load, and what memory does meanwhile
"""
