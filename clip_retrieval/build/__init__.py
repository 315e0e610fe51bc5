"""From a data source and an encoder to an artifact.

report.py         what a validation found
captions.py       the text of a caption as it is stored, and its id
seen_files.py     what the bytes of image files decode to, from earlier builds
decoding.py       images are decoded and prepared in other processes
validate.py       checks every image and caption, and decodes each image once
check.py          a source without an encoder; and validated images become records
splits.py         the split of each image: train, val or test
vector_cache.py   vectors by key in append-only files
known.py          vectors and thumbnails of earlier artifacts
originals.py      the original files, read once more and kept
thumbnails.py     thumbnails within a budget, made beside the embedding
on_a_gpu.py       vectors by the same model on a GPU, held against the encoder that serves
embed.py          vectors of images and captions, each distinct one encoded once
engine.py         where the images of a build are embedded
shard_place.py    where shards lie
shards.py         what was made of one block of a source, with its manifest
blocks.py         blocks of a source, and what a worker makes of one
embed_blocks.py   workers make the shards, and the build takes them in source order
embed_ray.py      the workers are actors of a Ray cluster
taken_vectors.py  vectors that another program made
plan.py           what must change so that a collection equals a source
write.py          the last step: index the vectors and write the artifact
pipeline.py       the whole build
"""
