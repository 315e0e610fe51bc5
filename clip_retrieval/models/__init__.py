"""Build time: from the name of a model to the folder of an encoder. Needs torch.

tokenizer_export.py   open_clip's tokenizers as a ``tokenizer.json``
towers.py             an open_clip model as two graphs that can be traced
reference.py          what torch float32 says, to judge exported graphs by
quantise.py           post-training quantisation to 8 bits
export.py             an open_clip folder to a folder that OpenVINO serves, checked against torch
demo.py               the demo model, assembled from two published packages and a small head
prepare.py            the encoder folder of a model name, from the cache or made
"""
