"""The rest of a path as a parameter, whatever characters it has: Starlette's own ends at a line break.

It takes the place of Starlette's for the mount, too, in which BentoML has this application.
"""

from starlette.convertors import PathConvertor, register_url_convertor


class _Rest(PathConvertor):
    regex = r"(?s:.*)"


register_url_convertor("path", _Rest())

IMAGE_ID = "{image_id:path}"
"""The id of an image at the end of a path. A build takes any text for one."""
MODEL = "{model:path}"
"""The name of a model, which may have a slash."""
