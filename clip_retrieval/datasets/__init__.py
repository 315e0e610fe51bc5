"""Readers of image collections, one layout per file. ``detect.open_source`` finds the reader that fits.

file_blob.py      an image in a file
outside.py        names of images outside of a place
stored.py         files that are read at any place, and images that are a part of one
taking.py         what a reader took a source for
column_names.py   which column of a table is what
base.py           the base class of readers, and what they share
place.py          where a source is, what lies there, and how readers say whether they can read it
names.py          the file that a table means by a name
shards.py         collections in several files: their order, their splits, what is unused
unused.py         the files that a reader did not use
image_files.py    which files of a place are images
tar_file.py       the files in a tar, without unpacking it
tar_place.py      the files in tars as a place that readers of folders read
text_languages.py what text of a language looks like
code_page.py      the code page of a text that is not Unicode
utf16.py          text in UTF-16 without a byte order mark
text_file.py      text files in any encoding
other_kinds.py    files that are called tables and are something else
delimited.py      the cells of a text table
typed.py          the types of metadata that a table gives as text
row_roles.py      which column is what in rows that each have columns of their own
    caption_cell.py   the captions in one cell
rows.py           the rows of a table, and how rows become images
list_file.py      a file that lists images: what its readers have in common
row_numbers.py    an image_id that numbers rows
sidecar_files.py  which text and JSON files belong to which image
csv_table.py      a text table
jsonl.py          a JSON Lines file
json_document.py  COCO, Karpathy's splits, and other JSON documents
table_files.py    which files may be tables, and how one is read
table_source.py   a collection that such files list
flickr.py         Flickr8k and Flickr30k in their public layouts
samples.py        rows and samples with values of their own types become images
img2dataset_status.py  what img2dataset writes of its downloads
parquet_file.py   one Parquet file: its columns and its rows
parquet_groups.py the row groups of a Parquet file
parquet_images.py the bytes of images in Parquet files
parquet_ids.py    which images of Parquet files have rows that do not follow each other
    parquet_rows.py   images in Parquet files
parquet.py        whether a place has images in Parquet files
json_values.py    what a JSON file says of one image
grouped.py        samples of several files
webdataset.py     tars of images
img2dataset.py    tars and folders that img2dataset wrote
vector_row.py     the place of a vector that another program made
vector_files.py   vectors that another program made
vectors.py        whether a place has such vectors
sidecar_reader.py what the files beside an image say
sidecar.py        a text or JSON file beside each image
image_folder.py   a folder of images without captions
store.py          what a store of files elsewhere has to do
arrow_store.py    S3 and Google Cloud Storage
fsspec_store.py   Hugging Face's hub, and single files of web servers
remote_file.py    a file in a store, read again after a failure
stamp.py          whether the bytes of an image may have changed
remote.py         sources in stores
detect.py         which reader reads a source
"""
