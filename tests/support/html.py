"""A page as a tree of elements, for tests of what it shows."""

from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "hr", "input", "wbr"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    children: list["Element | str"] = field(default_factory=list)

    def all(self, tag=None, *, id_=None, class_=None):
        for child in self.children:
            if isinstance(child, Element):
                classes = (child.attributes.get("class") or "").split()
                if (
                    (tag is None or child.tag == tag)
                    and (id_ is None or child.attributes.get("id") == id_)
                    and (class_ is None or class_ in classes)
                ):
                    yield child
                yield from child.all(tag, id_=id_, class_=class_)

    def one(self, *args, **kwargs):
        return next(self.all(*args, **kwargs))

    @property
    def text(self):
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


class Tree(HTMLParser):
    """A tree of elements. Fails on a tag that is not closed in its turn."""

    def __init__(self):
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


@cache
def tree(html):
    parser = Tree()
    parser.feed(html)
    parser.close()
    assert parser.open == [parser.root]
    return parser.root
