"""How good the model is, and what an index loses: two reports, never mixed.

recall.py             metrics of retrieval
report.py             what an evaluation found, as plain values
embedded_dataset.py   a collection with its vectors, ready to be measured
evaluate.py           the model's quality, by exact search
index_report.py       an index against exact search
misses_page.py        the worst misses as an HTML file
recall_plot.py        recall by cutoff as a plot
"""
