"""The serving runtime: OpenVINO on the CPU, without torch, open_clip or transformers in the process.

prefixes.py       a batch of texts as its distinct prefixes
encoder.py        the encoder: loads, compiles and runs the towers
"""
