"""The serving runtime: OpenVINO on the CPU, without torch, open_clip or transformers in the process.

runtime.py       the only door to openvino
prefixes.py       a batch of texts as its distinct prefixes
layouts.py        the inputs of a text tower, in the layout that it was exported for
spec.py           the files of an exported model, and their description
memory.py         returns memory that compiling needed
instructions.py   what the kernel says of the instructions of this CPU
tower.py          one compiled graph, and how batches share its threads
encoder.py        the encoder: loads, compiles and runs the towers
"""
