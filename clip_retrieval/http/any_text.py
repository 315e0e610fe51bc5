"""The rest of a path as a parameter, whatever characters it has: Starlette's own ends at a line break."""

from starlette.convertors import PathConvertor, register_url_convertor

REST = "rest"
"""``{name:rest}`` in the path of a route."""


class _Rest(PathConvertor):
    regex = r"(?s:.*)"


register_url_convertor(REST, _Rest())

IMAGE_ID = f"{{image_id:{REST}}}"
"""The id of an image at the end of a path. A build takes any text for one."""
MODEL = f"{{model:{REST}}}"
"""The name of a model, which may have a slash."""
