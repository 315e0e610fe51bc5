"""The quality of a model and the quality of its indexes, in two separate reports.

recall.py             metrics of retrieval
report.py             the result of an evaluation, as plain values
direction.py          one direction on one gallery
by_language.py        the same for each language of the captions
embedded_dataset.py   a collection with its vectors
clicked.py            where the images stand that people opened
reliability.py        whether a confidence keeps what it says
by_mode.py            searches by vectors, by words and by both
evaluate.py           the model's quality, by exact search
index_report.py       an index against exact search
misses_page.py        the worst misses as an HTML file
recall_plot.py        recall by cutoff as a plot
reliability_plot.py   what a confidence says and what is found, as a plot
"""
