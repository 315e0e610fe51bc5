"""Contrastive training of a model on a user's own collection, with a guard against a worse result.

settings.py       the settings of a run
pairs.py          captioned images as batches, with a mask of the pairs that are not negatives
data.py           the images and captions that a run trains and validates on
resumable.py      an array that is computed batch by batch and survives a kill
adapters.py       low-rank adapters
towers.py         the weights that train, and the part of each tower that is computed once
inputs.py         the tensors that the trained part reads
loop.py           the training loop
guard.py          the decision whether the result is better than the start
training_plot.py  a plot of the training
run.py            a whole run
"""
