"""The status page: one document, made on the server, without a script. `page.render` is its entrance."""

from cache_server.page.page import HEADERS, render

__all__ = ["HEADERS", "render"]
