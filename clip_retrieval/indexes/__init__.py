"""Vector indexes: the seam, FAISS behind it, and choosing an index by measuring.

base.py              the seam: what an index is asked, how it is described, what was measured of it
faiss_parameters.py  how broadly FAISS searches
faiss_cells.py       the file of an index, from which FAISS maps its cells too
faiss_rescoring.py   candidates scored by vectors in a mapped file, in the same call
faiss_index.py       an index over unit vectors, built by FAISS
faiss_joined.py      several of them in one call of FAISS
milvus_place.py      where a Milvus is, and how much it answers
milvus_lite.py       Milvus Lite: the process that has it open, and those that ask it
milvus_engine.py     Milvus: connections, deadlines and searches
fetched_vectors.py   vectors that are in Milvus alone
milvus_index.py      an index over unit vectors that Milvus searches
milvus_writer.py     collections of Milvus that appear complete
families.py          the kinds of FAISS index that a sweep tries
measure.py           recall against exact search, and the times of single searches
choose.py            the fastest index of a short list that reaches a recall
sweep.py             the fastest index of every family within a budget
pareto_plot.py       the trials of a sweep as a plot
"""
