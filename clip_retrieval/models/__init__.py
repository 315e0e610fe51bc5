"""Build time: from the name of a model to the folder of an encoder. Needs torch.

fingerprint.py        the fingerprint of a folder
catalogue.py          a table of models to choose from
calibration.py        the samples with which a model is quantised
registry.py           open_clip's names, and how their weights were trained
local_dir.py          an open_clip model as a self-contained folder
tokenizer_export.py   open_clip's tokenizers as a ``tokenizer.json``
embeddings.py         tables of token embeddings that stay in their file
towers.py             an open_clip model as two graphs that can be traced
reference.py          the vectors of torch in float32, with which exported graphs are compared
quantise.py           post-training quantisation to 8 bits
export.py             an open_clip folder to a folder that OpenVINO serves, checked against torch
demo_sources.py       the files that the demo model is assembled from
demo_weights.py       the weights of the demo model
demo.py               the folder of the demo model
prepare.py            the encoder folder of a model name, made or taken from the cache
"""
