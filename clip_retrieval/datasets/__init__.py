"""Readers of image collections, one layout per file. ``open_source`` finds the reader that fits.

file_blob.py      an image in a file
taking.py         what a reader took a source for
column_names.py   which column of a table is what
base.py           the base class of readers, and what they share
place.py          where a source is, what lies there, and how readers say whether they can read it
names.py          the file that a table means by a name
image_files.py    which files below a folder are images
unused.py         the files that a reader did not use
text_file.py      text files in any encoding
delimited.py      the cells of a text table
typed.py          the types of metadata that a table gives as text
rows.py           the rows of a table, and how rows become images
list_file.py      a file that lists images: what its readers have in common
csv_table.py      a text table
jsonl.py          a JSON Lines file
json_document.py  COCO, Karpathy's splits, and other JSON documents
table_source.py   a collection that such files list
flickr.py         Flickr8k and Flickr30k in their public layouts
sidecar.py        a text file beside each image
image_folder.py   a folder of images without captions
detect.py         which reader reads a source
"""

from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.datasets.place import SourceOptions

__all__ = ["Source", "SourceOptions", "open_source"]
