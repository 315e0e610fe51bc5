"""The parts of ``python -m scripts.model_matrix``, which exports models of open_clip with random weights.

random_model.py   a model of open_clip's registry with random weights and a small tokenizer, as a folder
measured.py       the memory and the speed of a prepared encoder, as a process of its own
row.py            one model: exported or refused, how near to torch, how large, how fast
"""
