"""The only door to openvino, which is imported without its telemetry.

An import of openvino, and of nncf, is reported to Intel by way of Google Analytics, unless there is no package to do
that with: both go on without ``openvino_telemetry``. A server also does without the converter of models, which takes
longer to import than all else of openvino; who exports a model imports it from ``openvino.tools.ovc``.
"""

import sys
from typing import Any, cast

TELEMETRY, CONVERTER = "openvino_telemetry", "openvino.tools.ovc"

_modules = cast("dict[str, Any]", sys.modules)  # None makes an import fail (Python's language reference, 5.3.1)
_modules[TELEMETRY] = None
if "openvino" in _modules:
    import openvino
else:
    _modules[CONVERTER] = None
    import openvino

    del _modules[CONVERTER]

__all__ = ["openvino"]
