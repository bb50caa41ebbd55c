"""The page at ``/docs``: Swagger UI over the OpenAPI document, from this server alone: there may be no internet."""

from importlib.metadata import distribution
from typing import Any

from litestar import Request
from litestar.datastructures import CacheControlHeader
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.static_files import create_static_files_router

from api.auth import PUBLIC
from api.published import published_document

# Only the files of this package are used: Swagger UI, kept fresh. None of its code is imported.
_FILES = distribution("fastapi-offline").locate_file("fastapi_offline/static")
_ASSETS = "/docs/assets"
_CACHED = CacheControlHeader(max_age=3600, public=True)

_PAGE = """<!DOCTYPE html>
<html lang="en">
  <head>
    <title>{title}</title>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <link rel="icon" href="data:,">
    <link rel="stylesheet" href="{assets}/swagger-ui.css">
  </head>
  <body>
    <div id="documentation"></div>
    <script src="{assets}/swagger-ui-bundle.js"></script>
    <script>
      SwaggerUIBundle({{
        spec: {document},
        dom_id: "#documentation",
        deepLinking: true,
        persistAuthorization: true,
        validatorUrl: null,
      }});
    </script>
  </body>
</html>
"""


class DocumentationPage(OpenAPIRenderPlugin):
    """Renders the document as a page on which its requests can be tried."""

    def __init__(self) -> None:
        super().__init__(path="/", favicon="", style="")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Write the page, with the document in it."""
        document = self.render_json(request, published_document(request.app)).decode()
        document = document.replace("</", "<\\/")  # nothing in it may end the script
        title = openapi_schema["info"]["title"]
        return _PAGE.format(title=title, assets=_ASSETS, document=document).encode()


ROUTES = [
    create_static_files_router(
        _ASSETS, [str(_FILES)], opt=PUBLIC, include_in_schema=False, cache_control=_CACHED, name="documentation-assets"
    )
]
