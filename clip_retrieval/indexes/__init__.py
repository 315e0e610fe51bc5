"""Vector indexes: the seam, FAISS behind it, and choosing one by measuring.

faiss_index.py    an index over unit vectors
families.py       the kinds of index that are tried
choose.py         the fastest of a short list that reaches a recall
sweep.py          every family to a budget
pareto_plot.py    a sweep as a plot
"""
