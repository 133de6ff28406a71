"""How sections and tables of the status page are put together. Pure."""

from collections.abc import Sequence

from cache_server.page.markup import Content, Html, element

Cells = Sequence[Content]


def nothing(text: str) -> Html:
    """What stands where there is nothing to show."""
    return element("div", text, class_="quiet")


def section(title: str, content: Html, remark: str = "") -> Html:
    """A part of the page, with its heading."""
    heading = element("h2", title, element("small", remark) if remark else "")
    return element("section", heading, element("div", content, class_="scroll"))


def table(heads: Sequence[tuple[str, str]], rows: Sequence[Cells]) -> Html:
    """Rows under heads; each head has a name and the class of its column."""
    kinds = [kind or None for _, kind in heads]
    head = ""
    if any(name for name, _ in heads):
        head = element(
            "thead",
            element("tr", *(element("th", name, class_=kind or None) for name, kind in heads)),
        )
    body = [
        element(
            "tr", *(element("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True))
        )
        for row in rows
    ]
    return element("table", head, element("tbody", *body))
