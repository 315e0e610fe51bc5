"""What the scripts and the load tests share. It imports neither; the load tests import nothing else of ``scripts``.

It is a sub-package of ``scripts`` because the top level of the repository is fixed, and because it is not about load.

paths.py     the checkout and the bundled sample
console.py   the console for people: standard error
machine.py   which processor, which commit, how much memory
server.py    a free port, a server process, and waiting until it is ready
"""
