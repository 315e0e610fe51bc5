"""The pages ``/docs`` (Swagger UI) and ``/redoc``, which ask no other host for anything.

Their scripts are those of fastapi-offline. ReDoc shows a logo from its maker's host, and Swagger UI may ask a
validator: the Content-Security-Policy forbids it (https://www.w3.org/TR/CSP3/).
"""

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html, get_swagger_ui_oauth2_redirect_html
from starlette.responses import HTMLResponse

STATIC = "/static-offline-docs"
OAUTH2 = "/docs/oauth2-redirect"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'"
)
_NO_LOGO = '<style>a[href*="redocly.com"] { display: none; }</style>'


def add_docs_pages(app: FastAPI) -> None:
    """Both pages over the description that ``app`` serves; they work behind a prefix too."""

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        page = get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=f"{app.title} – API",
            oauth2_redirect_url=f"{root}{OAUTH2}",
            swagger_js_url=f"{root}{STATIC}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{STATIC}/swagger-ui.css",
            swagger_favicon_url=f"{root}{STATIC}/favicon.png",
        )
        return _guarded(page)

    @app.get(OAUTH2, include_in_schema=False)
    async def oauth2() -> HTMLResponse:
        return _guarded(get_swagger_ui_oauth2_redirect_html())

    @app.get("/redoc", include_in_schema=False)
    async def redoc(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        page = get_redoc_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=f"{app.title} – API",
            redoc_js_url=f"{root}{STATIC}/redoc.standalone.js",
            redoc_favicon_url=f"{root}{STATIC}/favicon.png",
            with_google_fonts=False,
        )
        return _guarded(page, _NO_LOGO)


def _guarded(page: HTMLResponse, head: str = "") -> HTMLResponse:
    html = bytes(page.body).decode().replace("</head>", f"{head}</head>")
    return HTMLResponse(html, headers={"Content-Security-Policy": POLICY})
