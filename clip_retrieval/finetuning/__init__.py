"""Contrastive training of a model on one's own collection, with a guard against a result that is worse.

settings.py       what a run may vary
pairs.py          captioned images as batches, and which pairs are no negatives
data.py           the images and captions that a run trains and validates on
resumable.py      an array that is computed batch by batch and survives a kill
adapters.py       low-rank adapters
towers.py         what trains of a model, and what is computed once
inputs.py         the tensors that the trained part reads
loop.py           the training loop
guard.py          whether the result is better than the start
training_plot.py  how the training went, as a plot
run.py            a whole run
"""
