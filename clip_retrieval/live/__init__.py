"""A collection that changes while it is served: an artifact and the changes that came after it.

change.py  the state of an image after a change, and an entry of the log
edit.py    what a change makes of the present state of an image
"""
