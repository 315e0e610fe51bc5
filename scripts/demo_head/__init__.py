"""How the demo model's head is made; ``scripts/train_demo_head.py`` runs it.

materials.py  downloads and lists the drawings      classes.py   sentences about the ImageNet classes
sample.py     the bundled photographs and groups    towers.py    frozen features of images and texts
head.py       class mixture and ridge regression    measure.py   recall over random galleries
"""
