"""The parts of fine-tuning, one file each; ``finetune.py`` puts them together.

settings.py    what a run may vary
pairs.py       captioned pictures as batches, and which pairs are no negatives
towers.py      what trains of a model, and what is computed once
adapters.py    low-rank adapters
loop.py        the training loop
guard.py       whether the result is better than the start
plot.py        how the training went, as a picture
"""
