"""The searches that a service was asked, kept where an operator wants them: what to tune and to evaluate with.

entry.py    a search or a click as a line of a file
folder.py   where the files of a log are
segments.py the files that one process writes, within a bound of bytes for all
writer.py   lines are written beside the event loop
reader.py   what a log holds, and its end
"""
